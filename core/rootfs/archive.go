package rootfs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// xattrPrefix marks extended attributes in PAX records, as GNU tar and Docker
// do.
const xattrPrefix = "SCHILY.xattr."

// Archive writes a path as a tar archive. A directory's entries start with its
// own name, or with "." if the path ends in "/.".
func (v *View) Archive(name string, w io.Writer) error {
	fd, err := v.openEntry(name)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	prefix := path.Base(absolute(name))
	if strings.HasSuffix(name, "/.") {
		prefix = "."
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return v.archiveTree(fd, ".", prefix, w)
	}
	parent, err := v.open(path.Dir(absolute(name)), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	return v.archiveTree(parent, path.Base(absolute(name)), prefix, w)
}

// Export writes the whole filesystem as a tar archive.
func (v *View) Export(w io.Writer) error { return v.archiveTree(v.root, ".", "", w) }

// archiveTree writes what lies at start below the directory dir; start itself is
// called prefix.
func (v *View) archiveTree(dir int, start, prefix string, w io.Writer) error {
	root, err := os.OpenRoot(fdPath(dir))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	archive := &archiver{ids: v.ids, root: root, out: tar.NewWriter(w), links: map[inode]string{}}
	err = fs.WalkDir(tree{root}, start, func(name string, entry fs.DirEntry, err error) error {
		if name != start && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)) {
			return nil // gone, or something else, since it was listed
		}
		if err != nil {
			return err
		}
		if name == "." && prefix == "" {
			return nil // the root of an export has no name
		}
		info, err := root.Lstat(name)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone since it was listed
			}
			return err
		}
		shown := prefix
		if rest := strings.TrimPrefix(strings.TrimPrefix(name, start), "/"); name != start {
			if shown = path.Join(prefix, rest); prefix == "." {
				shown = "./" + rest
			}
		}
		if prefix == "" {
			shown = name
		}
		return archive.add(name, shown, info)
	})
	if err != nil {
		return err
	}
	return archive.out.Close()
}

// tree is a root filesystem for walking: it opens directories and nothing else,
// whatever a container puts in their places meanwhile.
type tree struct{ root *os.Root }

func (t tree) Open(name string) (fs.File, error) {
	return t.root.OpenFile(name, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

func (t tree) Stat(name string) (fs.FileInfo, error) { return t.root.Lstat(name) }

// regularIn opens a regular file below a root, without following a link in its
// place.
func regularIn(root *os.Root, name string) (*os.File, error) {
	at, err := root.OpenFile(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = at.Close() }()
	return openRegular(int(at.Fd()), name)
}

type inode struct{ dev, ino uint64 }

type archiver struct {
	ids   user.IdentityMapping
	root  *os.Root
	out   *tar.Writer
	links map[inode]string // first name of a file with several
}

func (a *archiver) add(name, shown string, info fs.FileInfo) error {
	if info.Mode()&os.ModeSocket != 0 {
		return nil // tar knows no sockets
	}
	target := ""
	if info.Mode()&os.ModeSymlink != 0 {
		var err error
		if target, err = a.root.Readlink(name); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return fmt.Errorf("archiving %s: %w", name, err)
	}
	header.Name, header.Format = shown, tar.FormatPAX
	header.Uname, header.Gname = "", ""
	header.AccessTime, header.ChangeTime = time.Time{}, time.Time{} // of this host, not of the file
	if !a.ids.Empty() {
		inside(a.ids, header)
	}
	if info.IsDir() {
		header.Name += "/"
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && !info.IsDir() && st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := a.links[id]; ok {
			header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
			return a.out.WriteHeader(header)
		}
		a.links[id] = shown
	}
	if info.IsDir() {
		if dir, err := (tree{a.root}).Open(name); err == nil { // else it is something else by now
			addXattrs(dir.(*os.File), header) //nolint:forcetypeassert // of os.Root
			_ = dir.Close()
		}
	}
	if !info.Mode().IsRegular() {
		return a.out.WriteHeader(header)
	}
	f, err := regularIn(a.root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotRegular) {
		return nil // gone, or something else, since it was listed
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	addXattrs(f, header)
	if err := a.out.WriteHeader(header); err != nil {
		return err
	}
	// A file that changes meanwhile is cut or filled to the size it had.
	n, err := io.CopyN(a.out, f, header.Size)
	if errors.Is(err, io.EOF) {
		_, err = io.CopyN(a.out, zeros{}, header.Size-n)
	}
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// addXattrs keeps the extended attributes that mean the same elsewhere: users' own,
// ACLs and file capabilities.
func addXattrs(f *os.File, header *tar.Header) {
	fd := int(f.Fd())
	size, err := unix.Flistxattr(fd, nil)
	if err != nil || size == 0 {
		return
	}
	names := make([]byte, size)
	if size, err = unix.Flistxattr(fd, names); err != nil {
		return // changed meanwhile
	}
	value := make([]byte, 64<<10) // the kernel's limit
	for name := range strings.SplitSeq(string(names[:size]), "\x00") {
		kept := strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "system.posix_acl_") || name == "security.capability"
		if !kept || strings.Contains(name, "=") { // which a PAX record cannot have
			continue
		}
		n, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			continue
		}
		if header.PAXRecords == nil {
			header.PAXRecords = map[string]string{}
		}
		header.PAXRecords[xattrPrefix+name] = string(value[:n])
	}
}

// ExtractOptions say how Extract treats what exists.
type ExtractOptions struct {
	// NoOverwriteDirNonDir fails where a file would replace a directory or the
	// other way round.
	NoOverwriteDirNonDir bool
	// CopyUIDGID keeps the archive's owners; they are kept in any case.
	CopyUIDGID bool
}

// Extract unpacks a tar archive into an existing directory.
func (v *View) Extract(dir string, r io.Reader, o ExtractOptions) error {
	fd, err := v.open(absolute(dir), unix.O_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errdefs.ErrInvalidArgument.WithMessage("extraction point is not a directory")
	}
	root, err := os.OpenRoot(fdPath(fd))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return extract(root, v.ids, r, o)
}
