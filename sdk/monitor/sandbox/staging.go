package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Staging is what somebody needs who makes a container's mount namespace from
// images: its root filesystem, and those of its mounts that are the host's. They
// are made as the stage makes them, but lie side by side on the host's paths.
type Staging struct {
	Propagation uintptr `json:"propagation"` // as in Container
	// Rootfs is the host directory over which the root filesystem is mounted. Root
	// are its mounts; none if the directory is it.
	Rootfs string  `json:"rootfs"`
	Root   []Mount `json:"root,omitempty"`
	// External are the container's mounts that are binds of the host's files.
	External []Mount `json:"external,omitempty"`
	// Place is a host directory for them, covered by a filesystem of its own.
	Place string `json:"place"`
	// Points are all places in the root filesystem on which there will be mounts:
	// files and directories that have to be there.
	Points []Point `json:"points,omitempty"`
}

// Point is a mount point in a container.
type Point struct {
	Path string `json:"path"`
	File bool   `json:"file,omitempty"` // else a directory
}

// Make mounts everything in a mount namespace that nobody else sees and that the
// calling thread is left in: it has to be one that is not used again. It answers
// the paths of the external mounts.
func (g *Staging) Make() (external []string, err error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, err
	}
	s := &stage{Config: Config{Container: &Container{Propagation: g.Propagation, Rootfs: g.Rootfs, Root: g.Root}}, root: -1, proc: -1}
	if err := s.makePrivate(); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	if err := s.mountRoot(); err != nil {
		return nil, fmt.Errorf("mounting the root filesystem: %w", err)
	}
	defer func() { _ = unix.Close(s.root) }()
	if err := unix.Mount("", g.Rootfs, "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return nil, fmt.Errorf("making the root filesystem private: %w", err)
	}
	for _, p := range g.Points {
		if err := s.makePoint(p); err != nil {
			return nil, fmt.Errorf("making mount point %s: %w", p.Path, err)
		}
	}
	if len(g.External) == 0 {
		return nil, nil
	}
	place, err := newFilesystem(Mount{Type: "tmpfs", Source: "external", Data: []string{"mode=700"}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(place) }()
	if err := unix.MoveMount(place, "", unix.AT_FDCWD, g.Place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("covering %s: %w", g.Place, err)
	}
	for i, m := range g.External {
		name := strconv.Itoa(i)
		if err := placeMount(m, place, name); err != nil {
			return nil, fmt.Errorf("mounting: %s on %s: %w", describe(m), m.Target, err)
		}
		external = append(external, filepath.Join(g.Place, name))
	}
	return external, nil
}

// placeMount makes a mount on a file or directory of its kind, with that name in
// a directory.
func placeMount(m Mount, dir int, name string) error {
	fd, err := createMount(m)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = unix.Mkdirat(dir, name, 0o700)
	} else {
		err = unix.Mknodat(dir, name, unix.S_IFREG|0o600, 0)
	}
	if err != nil {
		return err
	}
	return unix.MoveMount(fd, "", dir, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// makePoint makes what a mount point lacks in the root filesystem. One that is
// there is left as it is.
func (s *stage) makePoint(p Point) error {
	var fd int
	var err error
	if p.File {
		if fd, err = s.openInRoot(p.Path, unix.O_PATH); errors.Is(err, unix.ENOENT) {
			fd, err = s.ensureFile(p.Path)
		}
	} else {
		fd, err = s.ensureDir(p.Path)
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
