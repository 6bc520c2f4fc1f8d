package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/mount"
)

// mounted makes mounts as a runtime would and answers their directory. They are
// gone when the check is over, or earlier by the function.
func (t *T) mounted(mounts ...mount.Mount) (dir string, unmount func()) {
	dir, err := os.MkdirTemp(t.scratch(), "")
	t.must(err, "making a directory to mount at")
	done := false
	unmount = func() {
		if done {
			return
		}
		done = true
		for {
			if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil {
				if !errors.Is(err, unix.EINVAL) { // it is none any more
					t.errorf("unmounting %s: %v", dir, err)
				}
				break
			}
		}
		if err := os.Remove(dir); err != nil {
			t.errorf("%v", err)
		}
	}
	t.cleanup(unmount)
	for _, m := range mounts {
		// What is written to the mount must not be the host's.
		for _, place := range written(m) {
			if !t.inside(place) {
				t.fatalf("the mount %+v that the driver answered would write to %s, which is outside of its directories", m, place)
			}
		}
		if err := makeMount(m, filepath.Join(dir, m.Target)); err != nil {
			t.fatalf("the mount %+v that the driver answered cannot be made: %v", m, err)
		}
	}
	return dir, unmount
}

// written are the host's directories that are written to through a mount.
func written(m mount.Mount) []string {
	if flags, _ := flagsOf("bind"); m.Type == "bind" || slices.ContainsFunc(m.Options, func(o string) bool { f, _ := flagsOf(o); return f&flags != 0 }) {
		return []string{m.Source}
	}
	var places []string
	for _, option := range m.Options {
		for _, name := range []string{"upperdir=", "workdir="} {
			if place, ok := strings.CutPrefix(option, name); ok {
				places = append(places, place)
			}
		}
	}
	return places
}

// inside says whether a path leads into the bench, whatever links are in it. One
// that leads nowhere is for the mount to complain of.
func (b *bench) inside(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return os.IsNotExist(err)
	}
	dir, err := filepath.EvalSymlinks(b.dir)
	return err == nil && strings.HasPrefix(real, dir+"/")
}

// flagsOf are the mount flags that drivers use.
func flagsOf(option string) (uintptr, bool) {
	flag, ok := map[string]uintptr{
		"bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC, "ro": unix.MS_RDONLY, "rw": 0,
		"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME,
		"relatime": unix.MS_RELATIME, "nodiratime": unix.MS_NODIRATIME, "sync": unix.MS_SYNCHRONOUS,
		"suid": 0, "dev": 0, "exec": 0, "defaults": 0,
	}[option]
	return flag, ok
}

func makeMount(m mount.Mount, at string) error {
	var flags uintptr
	var data []string
	for _, option := range m.Options {
		if flag, ok := flagsOf(option); ok {
			flags |= flag
		} else {
			data = append(data, option)
		}
	}
	if m.Type == "bind" {
		flags |= unix.MS_BIND
	}
	if flags&unix.MS_BIND == 0 {
		return unix.Mount(m.Source, at, m.Type, flags, strings.Join(data, ","))
	}
	if len(data) > 0 {
		return fmt.Errorf("a bind mount has no options %v", data)
	}
	if err := unix.Mount(m.Source, at, "", flags&(unix.MS_BIND|unix.MS_REC), ""); err != nil {
		return err
	}
	if rest := flags &^ (unix.MS_BIND | unix.MS_REC); rest != 0 {
		return unix.Mount("", at, "", rest|unix.MS_BIND|unix.MS_REMOUNT, "")
	}
	return nil
}

// mountsBelow are the mount points in a directory.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var below []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			below = append(below, fields[4])
		}
	}
	return below, lines.Err()
}

// write puts a file into a mounted directory.
func (t *T) write(path, content string) {
	t.must(os.MkdirAll(filepath.Dir(path), 0o755), "making a directory")
	t.must(os.WriteFile(path, []byte(content), 0o644), "writing")
}

// holds wants a file with a content; empty: none.
func (t *T) holds(path, content, where string) {
	got, err := os.ReadFile(path)
	switch {
	case content == "" && !os.IsNotExist(err):
		t.errorf("%s: %s is there, and should not be", where, filepath.Base(path))
	case content != "" && err != nil:
		t.errorf("%s: %s: %v", where, filepath.Base(path), err)
	case content != "" && string(got) != content:
		t.errorf("%s: %s holds %.40q, not %q", where, filepath.Base(path), got, content)
	}
}
