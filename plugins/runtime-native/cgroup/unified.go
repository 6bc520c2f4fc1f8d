package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// unified is a group on cgroup v2.
type unified struct{ path string }

func (u *unified) version() int      { return 2 }
func (u *unified) group() string     { return filepath.Join(mountpoint, u.path) }
func (u *unified) dir(string) string { return u.group() }
func (u *unified) procs() string     { return u.group() }
func (u *unified) memory() string    { return filepath.Join(u.group(), "memory.events") }

func (u *unified) dirs() []string {
	if unix.Access(u.group(), unix.F_OK) != nil {
		return nil
	}
	return []string{u.group()}
}

// controllers are those a container is limited and measured by.
var controllers = []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"}

func (u *unified) create(r *specs.LinuxResources) (err error) {
	if err := check(r); err != nil {
		return err
	}
	made, err := makeDirs(mountpoint, u.path)
	defer func() {
		if err != nil && made != "" {
			err = errors.Join(err, removeTree(made))
		}
	}()
	if err != nil {
		return err
	}
	if err := u.enable(); err != nil {
		return err
	}
	list, err := unifiedSettings(r, u.has)
	if err != nil {
		return err
	}
	if err := apply(list, u.dir); err != nil {
		return err
	}
	return attachDevices(u.group(), r.Devices)
}

// enable hands the controllers down to the group, from the root on.
func (u *unified) enable() error {
	available, err := words(filepath.Join(mountpoint, "cgroup.controllers"))
	if err != nil {
		return err
	}
	wanted := slices.DeleteFunc(slices.Clone(controllers), func(c string) bool { return !slices.Contains(available, c) })
	parent := filepath.Dir(u.group())
	have, err := words(filepath.Join(u.group(), "cgroup.controllers"))
	if err != nil {
		return err
	}
	if missing(wanted, have) == "" {
		// Somebody else may be handing them down just now. The files are there when the
		// kernel has answered a write that changes nothing.
		return handDown(parent, missing(wanted, nil))
	}
	dir := mountpoint
	for _, part := range strings.Split(strings.TrimPrefix(u.path, "/"), "/") {
		have, err := words(filepath.Join(dir, "cgroup.subtree_control"))
		if err != nil {
			return err
		}
		if dir == parent {
			have = nil
		}
		if err := handDown(dir, missing(wanted, have)); err != nil {
			return err
		}
		dir = filepath.Join(dir, part)
	}
	return nil
}

// handDown enables controllers for the groups below a directory.
func handDown(dir, list string) error {
	if list == "" {
		return nil
	}
	err := writeFile(filepath.Join(dir, "cgroup.subtree_control"), list)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("cgroup %s has processes of its own and cannot have controllers for groups below it: %w: %w", strings.TrimPrefix(dir, mountpoint), err, errdefs.ErrFailedPrecondition)
	}
	return err
}

// missing words the controllers to enable, empty if there are all.
func missing(wanted, have []string) string {
	var list []string
	for _, c := range wanted {
		if !slices.Contains(have, c) {
			list = append(list, "+"+c)
		}
	}
	return strings.Join(list, " ")
}

func words(path string) ([]string, error) {
	body, err := readFile(path)
	return strings.Fields(string(body)), err
}

func (u *unified) update(r *specs.LinuxResources) error {
	list, err := unifiedSettings(r, u.has)
	if err != nil {
		return err
	}
	if err := checkUsage(r.Memory, u.usage); err != nil {
		return err
	}
	if err := change(list, u.dir); err != nil {
		return err
	}
	return attachDevices(u.group(), r.Devices)
}

func (u *unified) has(_, file string) bool {
	return unix.Access(filepath.Join(u.group(), file), unix.F_OK) == nil
}

func (u *unified) usage() (memory, withSwap uint64, err error) {
	if memory, err = number(filepath.Join(u.group(), "memory.current")); err != nil {
		return 0, 0, err
	}
	swap, err := number(filepath.Join(u.group(), "memory.swap.current"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return memory, memory + swap, err
}

func (u *unified) freeze(frozen bool) error {
	state := "0"
	if frozen {
		state = "1"
	}
	return writeFile(filepath.Join(u.group(), "cgroup.freeze"), state)
}

func (u *unified) frozen() (bool, error) {
	body, err := readFile(filepath.Join(u.group(), "cgroup.events"))
	return bytes.Contains(body, []byte("frozen 1")), err
}
