package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// body is what files of the archives in these tests hold.
const body = "content"

func file(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}
}

func dir(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }

func gone(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }

func symlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
}

func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644}
}

func with(h tar.Header, change func(*tar.Header)) tar.Header {
	h.ModTime = time.Unix(1, 0)
	change(&h)
	return h
}

// pack writes an archive; the error of one that the format cannot hold fails the test.
func pack(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func apply(root string, plain []byte, l Limits) (int64, error) {
	return Apply(context.Background(), root, bytes.NewReader(plain), digest.FromBytes(plain), l)
}

// cell is a root to unpack to, and around it what no layer may touch.
type cell struct{ outside, root string }

func newCell(t testing.TB) cell {
	t.Helper()
	outside := t.TempDir()
	c := cell{outside, filepath.Join(outside, "a", "b", "root")}
	if err := os.MkdirAll(c.root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"secret", "a/secret", "a/b/secret", "a/b/rootsecret"} {
		if err := os.WriteFile(filepath.Join(outside, name), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// surroundings describes everything but the root's content.
func (c cell) surroundings(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(c.outside, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if path == c.root {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		links := st.Nlink
		if info.IsDir() {
			links = 0
		}
		data, _ := os.ReadFile(path) // a directory has none
		fmt.Fprintf(&b, "%s %o %d:%d %d links, %q\n", path, st.Mode, st.Uid, st.Gid, links, data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What leads out of the root stays inside, and what it pointed to is as it was.
func TestNothingLeavesTheRoot(t *testing.T) {
	for name, test := range map[string]struct {
		entries []tar.Header
		inside  []string // there afterwards
	}{
		"parent in a name":                        {[]tar.Header{file("../../../secret")}, []string{"secret"}},
		"parent in the middle of a name":          {[]tar.Header{file("x/../../../../secret")}, []string{"secret"}},
		"absolute name":                           {[]tar.Header{file("/a/secret")}, []string{"a/secret"}},
		"name of the root's parent":               {[]tar.Header{with(dir(".."), func(h *tar.Header) { h.Mode = 0o777; h.Uid = 7 })}, nil},
		"sibling with the root's prefix":          {[]tar.Header{link("x", "../rootsecret")}, nil},
		"through an absolute link":                {[]tar.Header{symlink("l", "/a"), dir("a"), file("l/secret")}, []string{"a/secret"}},
		"through a link to the parents":           {[]tar.Header{symlink("l", "../.."), file("l/secret")}, []string{"secret"}},
		"through a chain of links":                {[]tar.Header{dir("d"), symlink("d/1", ".."), symlink("2", "d/1/../../.."), file("2/secret")}, []string{"secret"}},
		"over a link":                             {[]tar.Header{symlink("l", "../secret"), file("l")}, []string{"l"}},
		"directory over a link":                   {[]tar.Header{symlink("l", "../.."), with(dir("l"), func(h *tar.Header) { h.Mode = 0o700 }), file("l/secret")}, []string{"l/secret"}},
		"hard link to the parents":                {[]tar.Header{link("x", "../secret")}, nil},
		"hard link to an absolute name":           {[]tar.Header{link("x", "/a/b/secret")}, nil},
		"hard link through a link":                {[]tar.Header{symlink("l", "../.."), link("x", "l/secret")}, nil},
		"write through a hard link":               {[]tar.Header{symlink("l", "../secret"), link("x", "l"), file("x")}, []string{"x"}},
		"mode through a link's hard link":         {[]tar.Header{symlink("l", "../secret"), with(link("x", "l"), func(h *tar.Header) { h.Mode = 0o4777; h.Uid = 9 })}, nil},
		"deletion of the parents":                 {[]tar.Header{gone("../.wh.secret"), gone("../../.wh.b")}, nil},
		"deletion through a link":                 {[]tar.Header{symlink("l", "../.."), gone("l/.wh.secret")}, nil},
		"opaque through a link":                   {[]tar.Header{symlink("l", "../.."), gone("l/.wh..wh..opq")}, nil},
		"deletion called dot":                     {[]tar.Header{gone(".wh..")}, nil},
		"deletion called dot dot":                 {[]tar.Header{gone(".wh...")}, nil},
		"deletion of nothing":                     {[]tar.Header{gone("x/.wh.")}, nil},
		"opaque root":                             {[]tar.Header{file("x"), gone(".wh..wh..opq")}, []string{"x"}},
		"times of a directory that became a link": {[]tar.Header{dir("d"), symlink("d", "../..")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCell(t)
			before := c.surroundings(t)
			_, err := apply(c.root, pack(t, test.entries...), Limits{})
			if after := c.surroundings(t); after != before {
				t.Errorf("the layer (error %v) changed what is outside of its root:\n%s\nwas\n%s", err, after, before)
			}
			if _, lost := os.Stat(c.root); lost != nil {
				t.Error(lost)
			}
			for _, path := range test.inside {
				info, err := os.Lstat(filepath.Join(c.root, path))
				if err != nil || !info.Mode().IsRegular() {
					t.Errorf("%s is not a file below the root: %v %v", path, info, err)
				}
			}
		})
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat("d/", 50) + "f"
	for name, test := range map[string]struct {
		entries []tar.Header
		limits  Limits
		says    string
	}{
		"user beyond 32 bits":      {[]tar.Header{with(file("f"), func(h *tar.Header) { h.Uid = 1 << 32 })}, Limits{}, "beyond 32 bits"},
		"group that is none":       {[]tar.Header{with(file("f"), func(h *tar.Header) { h.Gid = math.MaxUint32 })}, Limits{}, "beyond 32 bits"},
		"overlayfs's whiteout":     {[]tar.Header{{Typeflag: tar.TypeChar, Name: "etc"}}, Limits{}, "character device 0/0"},
		"more entries than may be": {[]tar.Header{file("1"), file("2"), file("3")}, Limits{Entries: 2}, "more than 2 entries"},
		"deeper than may be":       {[]tar.Header{file(deep)}, Limits{Depth: 50}, "51 components"},
		"files larger than may be": {[]tar.Header{file("1"), file("2")}, Limits{Size: 13}, "more than 13 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			_, err := apply(root, pack(t, test.entries...), test.limits)
			if err == nil || !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v, want an invalid argument that says %q", err, test.says)
			}
			if limited := test.limits != (Limits{}); errors.Is(err, ErrLimit) != limited {
				t.Errorf("error %v is a limit's: %v", err, !limited)
			}
		})
	}
}

func TestLimitsAreReached(t *testing.T) {
	plain := pack(t, file("1"), file("a/b/2"))
	size, err := apply(t.TempDir(), plain, Limits{Size: int64(len(plain)), Entries: 2, Depth: 3})
	if err != nil || size != 2*int64(len(body)) {
		t.Errorf("%d bytes, error %v", size, err)
	}
}

// A small archive of a large one, and a small archive that says it has a large file,
// end before they fill the disk.
func TestBombs(t *testing.T) {
	const limit = 1 << 20
	t.Run("zeros behind the end", func(t *testing.T) {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		tree := append(pack(t, file("f")), make([]byte, 8*limit)...)
		if _, err := z.Write(tree); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := Apply(context.Background(), t.TempDir(), &packed, digest.FromBytes(tree), Limits{Size: limit})
		if !errors.Is(err, ErrLimit) {
			t.Errorf("error %v, want a limit's", err)
		}
	})
	t.Run("sparse file", func(t *testing.T) {
		const path = "testdata/sparse-1tib.tar" // 10 KiB
		plain, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		root := t.TempDir()
		if _, err = apply(root, plain, Limits{Size: limit}); !errors.Is(err, ErrLimit) {
			t.Errorf("error %v, want a limit's", err)
		}
		if list, err := os.ReadDir(root); err != nil || len(list) != 0 {
			t.Errorf("it left %v, %v", list, err)
		}
	})
}

// Attributes that are the host's have no effect; those that are a file's have.
func TestAttributes(t *testing.T) {
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\x07\x00\x00\x00" + // u::rw-, u:7:r--
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff" // g::r--, m::r--, o::r--
	kept := map[string]string{"user.color": "blue\x00", "security.capability": capability, "system.posix_acl_access": acl}
	for key, value := range kept {
		probe := filepath.Join(t.TempDir(), "probe")
		if err := os.WriteFile(probe, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(probe, key, []byte(value), 0); errors.Is(err, unix.ENOTSUP) {
			t.Logf("the filesystem of temporary files has no attribute %s", key)
			delete(kept, key)
		}
	}
	refused := map[string]string{
		"trusted.overlay.opaque": "y", "trusted.overlay.redirect": "/etc", "trusted.x": "1", "user.overlay.opaque": "y",
		"user.overlay.whiteout": "", "security.selinux": "x", "security.ima": "x",
	}
	for _, make := range []func(string) tar.Header{file, dir} {
		root := t.TempDir()
		h := make("f")
		h.PAXRecords = map[string]string{}
		for _, set := range []map[string]string{kept, refused} {
			for key, value := range set {
				h.PAXRecords[xattr+key] = value
			}
		}
		if h.Typeflag == tar.TypeDir {
			delete(h.PAXRecords, xattr+"security.capability") // only files have them
			delete(h.PAXRecords, xattr+"system.posix_acl_access")
		}
		if _, err := apply(root, packRecords(t, h), Limits{}); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, "f")
		for key := range refused {
			if value, ok := attribute(path, key); ok {
				t.Errorf("a layer set %s to %q", key, value)
			}
		}
		for key, want := range kept {
			if _, asked := h.PAXRecords[xattr+key]; !asked {
				continue
			}
			if value, _ := attribute(path, key); value != want {
				t.Errorf("%s is %q, want %q", key, value, want)
			}
		}
	}
}

// packRecords is pack for values that archive/tar does not write (NUL).
func packRecords(t testing.TB, h tar.Header) []byte {
	t.Helper()
	var records strings.Builder
	for key, value := range h.PAXRecords {
		line := " " + key + "=" + value + "\n"
		size := len(line)
		for n := 0; n != size; {
			n, size = size, len(line)+len(fmt.Sprint(size))
		}
		fmt.Fprintf(&records, "%d%s", size, line)
	}
	extended := pack(t, tar.Header{Typeflag: tar.TypeReg, Name: "pax", Size: int64(len(body))})[:512]
	copy(extended[124:136], fmt.Sprintf("%011o\x00", records.Len()))
	extended[156] = tar.TypeXHeader
	copy(extended[148:156], "        ")
	sum := 0
	for _, b := range extended {
		sum += int(b)
	}
	copy(extended[148:156], fmt.Sprintf("%06o\x00 ", sum))
	padded := make([]byte, (records.Len()+511)/512*512)
	copy(padded, records.String())
	h.PAXRecords = nil
	return append(append(extended, padded...), pack(t, h)...)
}

func attribute(path, key string) (string, bool) {
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(path, key, buf)
	return string(buf[:max(n, 0)]), err == nil
}

// Modes, owners, times and devices are the archive's, to the last bit; but as with
// Docker no time is before 1970.
func TestExact(t *testing.T) {
	root := t.TempDir()
	early := time.Date(1912, 6, 23, 1, 2, 3, 456789012, time.UTC)
	old := time.Unix(1, 23456789)
	long := strings.Repeat("n", 255)
	plain := pack(t,
		with(dir("d"), func(h *tar.Header) { h.Mode = 0o3711; h.Uid, h.Gid = 12, 34; h.ModTime = old }),
		with(file("d/setuid"), func(h *tar.Header) { h.Mode = 0o6755; h.Uid, h.Gid = maxID, maxID; h.ModTime = old }),
		with(file(long), func(h *tar.Header) { h.ModTime = time.Unix(1<<33, 999999999) }),
		with(file("d/early"), func(h *tar.Header) { h.ModTime = early }),
		tar.Header{Typeflag: tar.TypeChar, Name: "d/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeBlock, Name: "d/disk", Mode: 0o660, Devmajor: 259, Devminor: 70000},
		tar.Header{Typeflag: tar.TypeFifo, Name: "d/fifo", Mode: 0o600},
		link("hard", "d/setuid"),
		with(link("hard2", "hard"), func(h *tar.Header) { h.Mode = 0o6755; h.Uid, h.Gid = maxID, maxID; h.ModTime = old }),
	)
	if _, err := apply(root, plain, Limits{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		name     string
		mode     uint32
		uid, gid uint32
		rdev     uint64
		links    uint64
		time     time.Time
	}{
		{"d", unix.S_IFDIR | 0o3711, 12, 34, 0, 2, old},
		{"d/setuid", unix.S_IFREG | 0o6755, maxID, maxID, 0, 3, old},
		{long, unix.S_IFREG | 0o644, 0, 0, 0, 1, time.Unix(1<<33, 999999999)},
		{"d/early", unix.S_IFREG | 0o644, 0, 0, 0, 1, time.Unix(0, 0)},
		{"d/null", unix.S_IFCHR | 0o666, 0, 0, unix.Mkdev(1, 3), 1, time.Time{}},
		{"d/disk", unix.S_IFBLK | 0o660, 0, 0, unix.Mkdev(259, 70000), 1, time.Time{}},
		{"d/fifo", unix.S_IFIFO | 0o600, 0, 0, 0, 1, time.Time{}},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(root, want.name), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid || st.Rdev != want.rdev || uint64(st.Nlink) != want.links { //nolint:unconvert // links are 32 bits on arm64
			t.Errorf("%.20s: mode %o of %d:%d, device %x, %d links; want %+v", want.name, st.Mode, st.Uid, st.Gid, st.Rdev, st.Nlink, want)
		}
		if got := time.Unix(st.Mtim.Sec, st.Mtim.Nsec); !want.time.IsZero() && !got.Equal(want.time) {
			t.Errorf("%.20s: time %v, want %v", want.name, got.UTC(), want.time.UTC())
		}
	}
}

// Later entries win, whatever kind the earlier ones were.
func TestEntriesChangeType(t *testing.T) {
	root := t.TempDir()
	if _, err := apply(root, pack(t, dir("low"), file("low/f"), file("keep/f"), file("hidden/f")), Limits{}); err != nil {
		t.Fatal(err)
	}
	upper := pack(t, file("twice"), symlink("twice", "nowhere"), dir("twice"), file("twice/f"), file("low"),
		gone("keep/.wh.f"), file("hidden/g"), gone("hidden/.wh..wh..opq"),
		tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "keep", PAXRecords: map[string]string{"comment": "x"}})
	if _, err := apply(root, upper, Limits{}); err != nil {
		t.Fatal(err)
	}
	for name, there := range map[string]bool{"twice/f": true, "low": true, "low/f": false, "keep": true, "keep/f": false, "hidden/f": false, "hidden/g": true} {
		if _, err := os.Lstat(filepath.Join(root, name)); (err == nil) != there {
			t.Errorf("%s: %v, want it there: %v", name, err, there)
		}
	}
}

func TestCompressions(t *testing.T) {
	plain := pack(t, file("f"))
	half := len(plain) / 2
	gz := func(parts ...[]byte) []byte {
		var b bytes.Buffer
		for _, part := range parts {
			z := gzip.NewWriter(&b)
			_, err := z.Write(part)
			if err := errors.Join(err, z.Close()); err != nil {
				t.Fatal(err)
			}
		}
		return b.Bytes()
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zst := func(p []byte) []byte { return encoder.EncodeAll(p, nil) }
	skippable := []byte("\x5a\x2a\x4d\x18\x03\x00\x00\x00abc")
	for name, packed := range map[string][]byte{
		"plain": plain, "gzip": gz(plain), "gzip of several members": gz(plain[:half], nil, plain[half:]),
		"zstd": zst(plain), "zstd of several frames": append(zst(plain[:half]), zst(plain[half:])...),
		"zstd with skippable frames": bytes.Join([][]byte{skippable, zst(plain[:half]), skippable, zst(plain[half:]), skippable}, nil),
		"bzip2":                      tool(t, plain, "bzip2"), "xz": tool(t, plain, "xz"),
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if _, err := Apply(context.Background(), root, bytes.NewReader(packed), digest.FromBytes(plain), Limits{}); err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(filepath.Join(root, "f")); err != nil || string(data) != body {
				t.Errorf("%q, %v", data, err)
			}
			// Cut off anywhere it is refused.
			for _, n := range []int{len(packed) - 1, len(packed) / 2, 1} {
				if _, err := Apply(context.Background(), t.TempDir(), bytes.NewReader(packed[:n]), digest.FromBytes(plain), Limits{}); err == nil {
					t.Errorf("the first %d of %d bytes were taken for the layer", n, len(packed))
				}
			}
		})
	}
	t.Run("a name like a magic", func(t *testing.T) {
		root := t.TempDir()
		if _, err := apply(root, pack(t, file("BZh9")), Limits{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("a window that takes the memory", func(t *testing.T) {
		huge := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00} // 2 GiB
		if _, err := Apply(context.Background(), t.TempDir(), bytes.NewReader(huge), digest.FromString(""), Limits{}); !errors.Is(err, zstd.ErrWindowSizeExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

func tool(t *testing.T, in []byte, name string) []byte {
	t.Helper()
	cmd := exec.Command(name, "-c")
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWrongContent(t *testing.T) {
	plain := pack(t, file("f"))
	for _, id := range []digest.Digest{digest.FromString("other"), "", "sha256:x"} {
		if _, err := Apply(context.Background(), t.TempDir(), bytes.NewReader(plain), id, Limits{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("diff ID %q: error %v", id, err)
		}
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Apply(cancelled, t.TempDir(), bytes.NewReader(plain), digest.FromBytes(plain), Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
