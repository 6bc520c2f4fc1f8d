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

// legacy is a group on cgroup v1.
type legacy struct {
	path   string
	mounts []mounted
}

func newLegacy(path string) (*legacy, error) {
	list, err := mounts()
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("no cgroup hierarchy is mounted: %w", errdefs.ErrFailedPrecondition)
	}
	return &legacy{path, list}, err
}

func (l *legacy) version() int { return 1 }

// dir is the group's directory in a controller's hierarchy, empty if the host
// has none.
func (l *legacy) dir(controller string) string {
	for _, m := range l.mounts {
		if slices.Contains(m.controllers, controller) {
			return filepath.Join(m.dir, l.path)
		}
	}
	return ""
}

func (l *legacy) dirs() []string {
	var dirs []string
	for _, m := range l.mounts {
		if dir := filepath.Join(m.dir, l.path); unix.Access(dir, unix.F_OK) == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func (l *legacy) procs() string  { return l.dir("freezer") }
func (l *legacy) memory() string { return filepath.Join(l.dir("memory"), "memory.oom_control") }

func (l *legacy) create(r *specs.LinuxResources) (err error) {
	if err := check(r); err != nil {
		return err
	}
	var made []string
	defer func() {
		if err != nil {
			for _, dir := range made {
				err = errors.Join(err, removeTree(dir))
			}
		}
	}()
	for _, m := range l.mounts {
		top, err := makeDirs(m.dir, l.path)
		if top != "" {
			made = append(made, top)
		}
		if err != nil {
			return err
		}
		if slices.Contains(m.controllers, "cpuset") {
			if err := inheritCpuset(m.dir, filepath.Join(m.dir, l.path)); err != nil {
				return fmt.Errorf("taking over the CPUs of the parent: %w", err)
			}
		}
	}
	list, err := legacySettings(r, l.has)
	if err != nil {
		return err
	}
	if err := apply(list, l.dir); err != nil {
		return err
	}
	return l.limitDevices(r.Devices)
}

// makeDirs makes the directory of path below root and answers the uppermost one
// that was not there before.
func makeDirs(root, path string) (made string, err error) {
	dir := filepath.Join(root, path)
	switch err := unix.Mkdir(dir, 0o755); err {
	case nil:
		return dir, nil
	case unix.EEXIST:
		return "", nil
	case unix.ENOENT:
	default:
		return "", &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	made, err = makeDirs(root, filepath.Dir(path))
	if err != nil {
		return made, err
	}
	own, err := makeDirs(root, path)
	if made == "" {
		made = own
	}
	return made, err
}

// inheritCpuset gives a group, and those above it, CPUs and memory nodes: a v1
// cpuset is born with none and takes no process in before it has some.
func inheritCpuset(root, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if _, err := inheritFile(root, dir, name); err != nil {
			return err
		}
	}
	return nil
}

func inheritFile(root, dir, name string) (string, error) {
	body, err := readFile(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	if value := strings.TrimSpace(string(body)); value != "" || dir == root {
		return value, nil
	}
	value, err := inheritFile(root, filepath.Dir(dir), name)
	if err != nil {
		return "", err
	}
	return value, writeFile(filepath.Join(dir, name), value)
}

func (l *legacy) update(r *specs.LinuxResources) error {
	list, err := legacySettings(r, l.has)
	if err != nil {
		return err
	}
	if err := checkUsage(r.Memory, l.usage); err != nil {
		return err
	}
	if err := change(list, l.dir); err != nil {
		return err
	}
	return l.limitDevices(r.Devices)
}

// has looks at the group's own files: a root has not all.
func (l *legacy) has(controller, file string) bool {
	dir := l.dir(controller)
	return dir != "" && unix.Access(filepath.Join(dir, file), unix.F_OK) == nil
}

// usage is what limits are compared with. A kernel may count no swap.
func (l *legacy) usage() (memory, withSwap uint64, err error) {
	if memory, err = number(filepath.Join(l.dir("memory"), "memory.usage_in_bytes")); err != nil {
		return 0, 0, err
	}
	withSwap, err = number(filepath.Join(l.dir("memory"), "memory.memsw.usage_in_bytes"))
	if errors.Is(err, fs.ErrNotExist) {
		return memory, memory, nil
	}
	return memory, withSwap, err
}

func (l *legacy) freeze(frozen bool) error {
	state := "THAWED"
	if frozen {
		state = "FROZEN"
	}
	return writeFile(filepath.Join(l.dir("freezer"), "freezer.state"), state)
}

// frozen answers false for FREEZING: asked to thaw that is not yet done, asked to
// freeze neither.
func (l *legacy) frozen() (bool, error) {
	body, err := readFile(filepath.Join(l.dir("freezer"), "freezer.state"))
	return bytes.HasPrefix(body, []byte("FROZEN")), err
}
