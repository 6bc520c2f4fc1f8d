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
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// extract unpacks an archive below root, for owners of a user namespace with these
// IDs. os.Root refuses names that lead out,
// whatever links the archive or the container made.
func extract(root *os.Root, ids user.IdentityMapping, r io.Reader, o ExtractOptions) error {
	archive := tar.NewReader(r)
	// Directories get their times last: what is made in them changes those.
	times := map[string]time.Time{}
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the archive: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		if header.Uid, header.Gid, err = ids.ToHost(header.Uid, header.Gid); err != nil {
			return fmt.Errorf("unpacking %s: owner: %w: %w", header.Name, err, errdefs.ErrInvalidArgument)
		}
		name := strings.TrimPrefix(path.Clean("/"+header.Name), "/")
		if name == "" {
			name = "."
		}
		if err := extractEntry(root, name, header, archive, o); err != nil {
			return fmt.Errorf("unpacking %s: %w", header.Name, err)
		}
		if header.Typeflag == tar.TypeDir {
			times[name] = header.ModTime
		}
	}
	for name, modified := range times {
		if err := root.Chtimes(name, modified, modified); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func extractEntry(root *os.Root, name string, header *tar.Header, content io.Reader, o ExtractOptions) error {
	if err := makeRoom(root, name, header, o); err != nil {
		return err
	}
	mode := header.FileInfo().Mode()
	switch header.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(name, mode.Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeReg:
		if err := writeFile(root, name, content); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := root.Symlink(header.Linkname, name); err != nil {
			return err
		}
		return root.Lchown(name, header.Uid, header.Gid)
	case tar.TypeLink:
		return root.Link(strings.TrimPrefix(path.Clean("/"+header.Linkname), "/"), name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := makeNode(root, name, header); err != nil {
			return err
		}
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("entry of type %q: %w", header.Typeflag, errdefs.ErrInvalidArgument)
	}
	if err := root.Lchown(name, header.Uid, header.Gid); err != nil {
		return err
	}
	// After the owner: chown takes setuid bits away.
	if err := root.Chmod(name, mode); err != nil {
		return err
	}
	if header.Typeflag == tar.TypeDir {
		return nil
	}
	if header.Typeflag == tar.TypeReg {
		if err := setXattrs(root, name, header); err != nil {
			return err
		}
	}
	return root.Chtimes(name, header.ModTime, header.ModTime)
}

// makeRoom makes the parent and removes what an entry replaces.
func makeRoom(root *os.Root, name string, header *tar.Header, o ExtractOptions) error {
	if name == "." {
		return nil
	}
	if parent := path.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	isDir := header.Typeflag == tar.TypeDir
	if info.IsDir() && isDir {
		return nil
	}
	if o.NoOverwriteDirNonDir && info.IsDir() != isDir {
		if info.IsDir() {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("cannot overwrite directory %q with non-directory", "/"+name))
		}
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("cannot overwrite non-directory %q with directory", "/"+name))
	}
	return root.RemoveAll(name)
}

func writeFile(root *os.Root, name string, content io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, content); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func makeNode(root *os.Root, name string, header *tar.Header) error {
	parent, err := root.OpenFile(path.Dir(name), unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	mode := uint32(header.Mode & 0o7777)
	switch header.Typeflag {
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	default:
		mode |= unix.S_IFIFO
	}
	return unix.Mknodat(int(parent.Fd()), path.Base(name), mode, int(unix.Mkdev(uint32(header.Devmajor), uint32(header.Devminor))))
}

func setXattrs(root *os.Root, name string, header *tar.Header) error {
	for key, value := range header.PAXRecords {
		attribute, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok {
			continue
		}
		f, err := regularIn(root, name)
		if err != nil {
			return err
		}
		err = unix.Fsetxattr(int(f.Fd()), attribute, []byte(value), 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("attribute %s: %w", attribute, err)
		}
	}
	return nil
}
