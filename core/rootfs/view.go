// Package rootfs looks into containers' root filesystems without leaving a
// mount on the host, and without following what a container put into them out
// of them: every path is resolved by the kernel as if the container's root was
// "/".
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/openat2"
	davitruntime "github.com/davit-engine/davit/sdk/runtime"
)

// View is a root filesystem one can look into; it is valid inside the function
// it is given to.
type View struct {
	root int
	ids  user.IdentityMapping // of the user namespace whose IDs owners are shown in; empty: the host's
}

// base is where a private mount namespace mounts: a directory that every Linux
// system has and nothing here needs.
const base = "/sys"

// Mounted mounts a root filesystem in a mount namespace of its own, on a thread
// that ends afterwards, and calls fn. With readOnly, layers that a running
// container writes to may be looked at, too.
func Mounted(ctx context.Context, mounts []mount.Mount, readOnly bool, fn func(*View) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread and its namespace end here
		result <- onPrivateThread(mounts, readOnly, fn)
	}()
	return <-result
}

func onPrivateThread(mounts []mount.Mount, readOnly bool, fn func(*View) error) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	v := &View{root: -1}
	for _, m := range mounts {
		if err := v.attach(m, readOnly); err != nil {
			return fmt.Errorf("mounting %s of %s: %w", m.Type, m.Source, err)
		}
		if v.root < 0 {
			root, err := unix.Open(base, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			v.root = root
			defer func() { _ = unix.Close(root) }()
		}
	}
	if v.root < 0 {
		return fmt.Errorf("no mounts: %w", errdefs.ErrInvalidArgument)
	}
	return fn(v)
}

// attach mounts one mount: the first as the root, others below it where their
// place exists.
func (v *View) attach(m mount.Mount, readOnly bool) error {
	target := base
	if v.root >= 0 {
		fd, err := v.open(m.Target, unix.O_PATH)
		if errors.Is(err, unix.ENOENT) {
			return nil // never mounted there: nothing to see
		}
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		target = fdPath(fd)
	}
	source := m.Source
	if i := slices.IndexFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, davitruntime.SubdirOption) }); i >= 0 {
		part, err := OpenBelow(m.Source, strings.TrimPrefix(m.Options[i], davitruntime.SubdirOption))
		if err != nil {
			return err
		}
		defer func() { _ = part.Close() }()
		source = fdPath(int(part.Fd()))
	}
	flags, data := split(m.Options)
	if readOnly {
		flags |= unix.MS_RDONLY
		if m.Type == "overlay" {
			data = withoutUpper(data)
		}
	}
	if flags&unix.MS_BIND == 0 && m.Type != "bind" {
		return unix.Mount(m.Source, target, m.Type, flags, strings.Join(data, ","))
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|flags&unix.MS_REC, ""); err != nil {
		return err
	}
	if flags&unix.MS_RDONLY == 0 {
		return nil
	}
	// The path now leads to the new mount only if it is looked up again.
	if v.root >= 0 {
		fd, err := v.open(m.Target, unix.O_PATH)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		target = fdPath(fd)
	}
	return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// split separates flags from filesystem options.
func split(options []string) (flags uintptr, data []string) {
	known := map[string]uintptr{"ro": unix.MS_RDONLY, "rw": 0, "bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC}
	for _, option := range options {
		if flag, ok := known[option]; ok {
			flags |= flag
		} else {
			data = append(data, option)
		}
	}
	return flags, data
}

// withoutUpper makes an overlay's upper directory its topmost lower one: a
// second overlay must not write where a container's does.
func withoutUpper(data []string) []string {
	upper := ""
	kept := slices.DeleteFunc(slices.Clone(data), func(option string) bool {
		if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
			upper = dir
		}
		return strings.HasPrefix(option, "upperdir=") || strings.HasPrefix(option, "workdir=")
	})
	for i, option := range kept {
		if lower, ok := strings.CutPrefix(option, "lowerdir="); ok && upper != "" {
			kept[i] = "lowerdir=" + upper + ":" + lower
		}
	}
	return kept
}

// Running looks at the root of a container's running process. A number that is
// another process's by now is told by its cgroup, in whose path is the ID of the
// container that a process belongs to.
func Running(pid int, id string, fn func(*View) error) error {
	process, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w: %w", pid, err, errdefs.ErrFailedPrecondition)
	}
	defer func() { _ = unix.Close(process) }() // stands for this process, also when it has ended
	root, err := unix.Openat(process, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("root of process %d: %w: %w", pid, err, errdefs.ErrFailedPrecondition)
	}
	defer func() { _ = unix.Close(root) }()
	groups, err := os.ReadFile(fdPath(process) + "/cgroup")
	if err != nil {
		return fmt.Errorf("cgroup of process %d: %w: %w", pid, err, errdefs.ErrFailedPrecondition)
	}
	if !strings.Contains(string(groups), id) {
		return fmt.Errorf("process %d is not of container %s: %w", pid, id, errdefs.ErrFailedPrecondition)
	}
	ids, err := idsOf(fdPath(process))
	if err != nil {
		return err
	}
	return (&View{root, ids}).withIDs(fn)
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// open opens a path below the root, links resolved inside it.
func (v *View) open(name string, flags uint64) (int, error) {
	fd, err := openat2.Open(v.root, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// ReadFile reads a small file, at most 4 MiB of it. What is not a regular file
// is not opened: a fifo would never end, a device may do anything.
func (v *View) ReadFile(name string) ([]byte, error) {
	fd, err := v.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	f, err := openRegular(fd, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, 4<<20))
}

// errNotRegular is for files whose opening may wait or have an effect.
var errNotRegular = errdefs.ErrInvalidArgument.WithMessage("not a regular file")

// openRegular opens what an O_PATH descriptor names for reading, if that is a
// regular file.
func openRegular(fd int, name string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &os.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	return os.Open(fdPath(fd))
}

// openEntry opens a path without following its last component, unless it ends
// in a slash or "/.".
func (v *View) openEntry(name string) (int, error) {
	clean := absolute(name)
	if strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") || clean == "/" {
		return v.open(clean, unix.O_PATH)
	}
	parent, err := v.open(path.Dir(clean), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(parent) }()
	fd, err := unix.Openat(parent, path.Base(clean), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

func absolute(name string) string { return path.Clean("/" + name) }

// Stat describes a path without following its last component.
func (v *View) Stat(name string) (mobycontainer.PathStat, error) {
	var stat mobycontainer.PathStat
	fd, err := v.openEntry(name)
	if err != nil {
		return stat, err
	}
	f := os.NewFile(uintptr(fd), absolute(name))
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return stat, err
	}
	stat = mobycontainer.PathStat{Name: path.Base(absolute(name)), Size: info.Size(), Mode: info.Mode(), Mtime: info.ModTime()}
	if info.Mode()&os.ModeSymlink != 0 {
		buffer := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", buffer)
		if err != nil {
			return stat, err
		}
		target := string(buffer[:n])
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(absolute(name)), target)
		}
		stat.LinkTarget = absolute(target)
	}
	return stat, nil
}

// Path is the root as a path that the calling function may use on its own
// goroutine; below it, links lead where they like.
func (v *View) Path() string { return fdPath(v.root) }
