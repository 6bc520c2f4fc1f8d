package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// setting is a value for a controller's file.
type setting struct {
	controller, file, value string
	// optional: that the kernel has no such file is no error.
	optional bool
	// merge completes the value by what the file has; nil: nothing.
	merge func(present string) string
	// before finds in the file what to write to take the value back; nil: all of it.
	before func(present string) string
}

// line is the before of a file with a line for each device or other key: the
// key's line, or with no such line the value that means none.
func line(key, none string) func(string) string {
	return func(present string) string {
		for text := range strings.Lines(present) {
			if strings.HasPrefix(text, key+" ") {
				return strings.TrimSpace(text)
			}
		}
		return key + " " + none
	}
}

// place finds the directory in which a group's files of a controller are; empty
// if the host does not have the controller.
type place func(controller string) string

// apply writes settings. One may be possible only after another (a memory limit
// above the present one of memory and swap, a burst below the quota): what the
// kernel refuses is tried again as long as others succeed.
func apply(list []setting, where place) error {
	for len(list) > 0 {
		var refused []setting
		var first error
		for _, s := range list {
			if err := s.write(where); err != nil {
				refused = append(refused, s)
				if first == nil {
					first = err
				}
			}
		}
		if len(refused) == len(list) {
			return first
		}
		list = refused
	}
	return nil
}

// change is apply for a group in use: it writes all settings or, where one is
// refused, puts back what there was.
func change(list []setting, where place) error {
	var undo []setting
	for i, s := range list {
		body, err := readFile(filepath.Join(where(s.controller), s.file))
		if err != nil {
			continue // not there, which write reports, or only written
		}
		present := strings.TrimSpace(string(body))
		if s.merge != nil {
			list[i].value = s.merge(present)
		}
		if s.before != nil {
			present = s.before(present)
		}
		s.value, s.optional = present, true
		undo = append(undo, s)
	}
	err := apply(list, where)
	if err != nil {
		slices.Reverse(undo)
		_ = apply(undo, where) // the refused ones have not changed
	}
	return err
}

// write sets the value.
func (s setting) write(where place) error {
	dir := where(s.controller)
	if dir == "" {
		if s.optional {
			return nil
		}
		return fmt.Errorf("the kernel has no cgroup controller %s, needed for %s: %w", s.controller, s.file, errdefs.ErrNotImplemented)
	}
	path := filepath.Join(dir, s.file)
	err := writeFile(path, s.value)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return s.explain(path, err)
	case s.optional:
		return nil
	case unix.Access(dir, unix.F_OK) != nil: // the group itself is gone
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return fmt.Errorf("the kernel has no cgroup file %s: %w", s.file, errdefs.ErrNotImplemented)
}

// explain says what was written where, and what is in the way of a memory limit.
func (s setting) explain(path string, err error) error {
	err = fmt.Errorf("writing %q to %s: %w", s.value, s.file, err)
	if errors.Is(err, unix.EBUSY) && s.controller == "memory" {
		usage, readErr := number(filepath.Join(filepath.Dir(path), "memory.usage_in_bytes"))
		peak, peakErr := number(filepath.Join(filepath.Dir(path), "memory.max_usage_in_bytes"))
		if readErr == nil && peakErr == nil {
			err = fmt.Errorf("unable to set memory limit to %s (current usage: %d, peak usage: %d): %w", s.value, usage, peak, err)
		}
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.E2BIG) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// writeFile writes to an existing file in one call, as the kernel's files want
// it, and never makes one.
func writeFile(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		_, err := unix.Write(fd, []byte(value))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "write", Path: path, Err: err}
		}
		return nil
	}
}

// readFile reads a kernel's file. Unlike os.ReadFile it does not make the file
// known to the poller, which costs more than reading it.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	body := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, body[len(body):cap(body)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return body, nil
		}
		body = slices.Grow(body[:len(body)+n], 4096)
	}
}

// number reads a file with one number.
func number(path string) (uint64, error) {
	body, err := readFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(body)), 10, 64)
}
