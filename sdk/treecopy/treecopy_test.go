package treecopy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// describe lists a tree with all that is to be copied of each file.
func describe(t *testing.T, root string) []string {
	t.Helper()
	var lines []string
	names := map[uint64]string{}
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		name := strings.TrimPrefix(path, root)
		line := fmt.Sprintf("%s %o %d:%d %d.%d rdev %d", name, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			body, err := os.ReadFile(path)
			must(t, err)
			line += fmt.Sprintf(" %d bytes %x", len(body), body[:min(len(body), 40)])
			if st.Nlink > 1 {
				if names[st.Ino] == "" {
					names[st.Ino] = name
				}
				line += " is " + names[st.Ino]
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			must(t, err)
			line += " to " + target
		}
		buffer := make([]byte, 4096)
		n, err := unix.Llistxattr(path, buffer)
		must(t, err)
		attributes := strings.Split(strings.TrimSuffix(string(buffer[:n]), "\x00"), "\x00")
		sort.Strings(attributes)
		for _, attribute := range attributes {
			if attribute == "" {
				continue
			}
			n, err := unix.Lgetxattr(path, attribute, buffer)
			must(t, err)
			line += fmt.Sprintf(" %s=%x", attribute, buffer[:n])
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

// tree makes one of everything.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	in := func(name string) string { return filepath.Join(root, name) }
	must(t, errors.Join(
		os.MkdirAll(in("dir/deep"), 0o755), os.WriteFile(in("dir/deep/file"), []byte("content"), 0o640), os.Chown(in("dir/deep/file"), 33, 34),
		os.WriteFile(in("program"), []byte("#!"), 0o600), os.Chown(in("program"), 5, 6), unix.Chmod(in("program"), 0o6755),
		unix.Setxattr(in("program"), "security.capability", []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0),
		os.Symlink("/etc/passwd", in("absolute")), os.Symlink("../../../../etc", in("dir/up")), os.Symlink("gone", in("dangling")), os.Lchown(in("dangling"), 7, 8),
		unix.Lsetxattr(in("dangling"), "trusted.t", []byte("of a link"), 0),
		os.Link(in("program"), in("dir/zz-program")), os.Link(in("dangling"), in("dir/dangling")),
		unix.Mkfifo(in("fifo"), 0o622), unix.Mknod(in("device"), unix.S_IFCHR|0o660, int(unix.Mkdev(1, 3))), unix.Mknod(in("socket"), unix.S_IFSOCK|0o700, 0),
		os.Mkdir(in("sticky"), 0o755), unix.Chmod(in("sticky"), 0o3777), os.Chown(in("sticky"), 65534, 65534),
		unix.Setxattr(in("sticky"), "user.davit", []byte("value"), 0), unix.Setxattr(in("dir/deep/file"), "user.empty", nil, 0),
		// user::rwx,user:1000:rwx,group::r-x,mask::rwx,other::r-x, for what is made in it
		unix.Setxattr(in("sticky"), "system.posix_acl_default", []byte("\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x07\x00\xe8\x03\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"), 0),
		os.WriteFile(in("sticky/below"), nil, 0o600), os.WriteFile(in("name with\nnewline"), nil, 0o000),
		os.Chown(root, 1, 2), unix.Chmod(root, 0o711),
	))
	sparse, err := os.Create(in("sparse"))
	must(t, err)
	_, err = sparse.WriteAt([]byte("middle"), 5<<20)
	must(t, errors.Join(err, sparse.Truncate(9<<20), sparse.Close()))
	old := []unix.Timespec{{Sec: 1e9, Nsec: 123456789}, {Sec: 1e9 + 1, Nsec: 987654321}}
	for _, name := range []string{"dir/deep/file", "dir/deep", "dir", "program", "absolute", "fifo", "socket", "sparse", "sticky", ""} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), old, unix.AT_SYMLINK_NOFOLLOW))
	}
	return root
}

func TestACopyIsExact(t *testing.T) {
	from, into := tree(t), t.TempDir()
	want := describe(t, from)
	must(t, Copy(t.Context(), openDir(t, from), openDir(t, into)))
	if diff := cmp.Diff(want, describe(t, into)); diff != "" {
		t.Errorf("(-source +copy)\n%s", diff)
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(into, "sparse"), &st))
	if st.Blocks*512 > 1<<20 {
		t.Errorf("the holes are filled: %d blocks", st.Blocks)
	}
}

// To another filesystem, where no call of the kernel copies.
func TestACopyOnAnotherFilesystem(t *testing.T) {
	from, into := tree(t), t.TempDir()
	must(t, unix.Mount("tmpfs", into, "tmpfs", 0, "size=32m"))
	t.Cleanup(func() { _ = unix.Unmount(into, unix.MNT_DETACH) })
	if unix.Setxattr(into, "user.davit", nil, 0) == unix.ENOTSUP { // a tmpfs before Linux 6.6
		must(t, errors.Join(unix.Removexattr(filepath.Join(from, "sticky"), "user.davit"), unix.Removexattr(filepath.Join(from, "dir/deep/file"), "user.empty")))
	} else {
		must(t, unix.Removexattr(into, "user.davit"))
	}
	must(t, Copy(t.Context(), openDir(t, from), openDir(t, into)))
	if diff := cmp.Diff(describe(t, from), describe(t, into)); diff != "" {
		t.Errorf("(-source +copy)\n%s", diff)
	}
}

func TestWhatIsMountedInTheTreeIsLeftOut(t *testing.T) {
	from, into := t.TempDir(), t.TempDir()
	must(t, os.Mkdir(filepath.Join(from, "m"), 0o755))
	must(t, unix.Mount("tmpfs", filepath.Join(from, "m"), "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(from, "m"), unix.MNT_DETACH) })
	must(t, os.WriteFile(filepath.Join(from, "m/file"), nil, 0o600))
	must(t, Copy(t.Context(), openDir(t, from), openDir(t, into)))
	if entries, err := os.ReadDir(filepath.Join(into, "m")); err != nil || len(entries) > 0 {
		t.Errorf("copied: %v, %v", entries, err)
	}
}

func TestACopyThatIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Copy(ctx, openDir(t, tree(t)), openDir(t, t.TempDir())); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestWhatExistsIsNotReplaced(t *testing.T) {
	from, into, outside := t.TempDir(), t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(from, "file"), []byte("x"), 0o600))
	must(t, os.Symlink(filepath.Join(outside, "made"), filepath.Join(into, "file")))
	if err := Copy(t.Context(), openDir(t, from), openDir(t, into)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside is %v, %v", entries, err)
	}
}

// Somebody swaps directories of both trees for links that lead out, all the
// time: nothing is read or written there.
func TestSwappedDirectories(t *testing.T) {
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	before := describe(t, outside)
	from, into := t.TempDir(), t.TempDir()
	for i := range 20 {
		dir := filepath.Join(from, fmt.Sprintf("d%02d", i), "sub")
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("harmless"), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "zz"), []byte("harmless"), 0o600))
		if i > 0 {
			must(t, os.Link(filepath.Join(from, "d00/sub/zz"), filepath.Join(dir, "linked")))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	swapped := make(chan struct{})
	go func() {
		defer close(swapped)
		for ctx.Err() == nil {
			for _, tree := range []string{from, into} {
				dirs, _ := filepath.Glob(filepath.Join(tree, "*", "d*"))
				more, _ := filepath.Glob(filepath.Join(tree, "d*"))
				for _, dir := range slices.Concat(dirs, more) {
					_ = os.Rename(dir, dir+".away")
					_ = os.Symlink(outside, dir)
					_ = os.Remove(dir)
					_ = os.Rename(dir+".away", dir)
				}
			}
		}
	}()
	for round := 0; ctx.Err() == nil; round++ {
		name := filepath.Join(into, fmt.Sprint(round))
		must(t, os.Mkdir(name, 0o755))
		_ = Copy(ctx, openDir(t, from), openDir(t, name)) // it may fail; it must not lead out
	}
	<-swapped
	if diff := cmp.Diff(before, describe(t, outside)); diff != "" {
		t.Errorf("outside was changed:\n%s", diff)
	}
	must(t, filepath.WalkDir(into, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if body, _ := os.ReadFile(path); string(body) == "secret" {
				t.Errorf("%s is the secret", path)
			}
		}
		return nil
	}))
}

func TestTooDeep(t *testing.T) {
	from := t.TempDir()
	dir := openDir(t, from)
	at := int(dir.Fd())
	for range MaxDepth + 2 {
		must(t, unix.Mkdirat(at, "d", 0o755))
		next, err := unix.Openat(at, "d", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		if at != int(dir.Fd()) {
			must(t, unix.Close(at))
		}
		at = next
	}
	must(t, unix.Close(at))
	if err := Copy(t.Context(), dir, openDir(t, t.TempDir())); err == nil || !strings.Contains(err.Error(), "tree deeper than 2048 directories") {
		t.Errorf("got %v", err)
	}
}
