package room

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestRoomIsKept(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	size, free := int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
	for name, c := range map[string]struct {
		limit  Limit
		wanted int64
		ok     bool
	}{
		"no limit":            {Limit{}, size * 2, true},
		"bytes":               {Limit{Bytes: free / 2}, 0, true},
		"more than there are": {Limit{Bytes: free * 2}, 0, false},
		"with what is wanted": {Limit{Bytes: free / 2}, free * 3 / 4, false},
		"a part":              {Limit{Percent: 0.001}, 0, true},
		"all of it":           {Limit{Percent: 100}, 1, false},
	} {
		c.limit.Setting = "the.key"
		err := c.limit.Check(dir, c.wanted)
		if c.ok {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) || !errdefs.IsResourceExhausted(err) || !strings.HasPrefix(err.Error(), "no space left on device at "+dir) || !strings.Contains(err.Error(), "the.key keeps") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Limit{Bytes: 1}).Check("/no/such/place", 0); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no place: %v", err)
	}
}

func TestAMeterLooksAgain(t *testing.T) {
	dir := t.TempDir()
	body := bytes.Repeat([]byte("x"), 3*every)
	m := &Meter{Limit: Limit{Bytes: 1}, Path: dir}
	if n, err := io.Copy(io.Discard, m.Reader(bytes.NewReader(body))); err != nil || n != int64(len(body)) {
		t.Errorf("%d, %v", n, err)
	}
	// The room goes while bytes pass.
	m = &Meter{Limit: Limit{Bytes: 1}, Path: dir}
	in := m.Reader(bytes.NewReader(body))
	if _, err := io.CopyN(io.Discard, in, 1000); err != nil {
		t.Fatal(err)
	}
	m.Bytes = 1 << 62
	if n, err := io.Copy(io.Discard, in); !errors.Is(err, syscall.ENOSPC) || n > every+1<<20 {
		t.Errorf("after %d bytes: %v", n, err)
	}
}
