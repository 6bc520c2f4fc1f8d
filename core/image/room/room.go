// Package room says whether a file system has room for more, with a part of it kept
// free.
package room

import (
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// every is how many bytes are written between two looks.
const every = 8 << 20

// Limit is what is kept free of a file system: a number of bytes, or a part of its size.
// The zero value keeps nothing, and never refuses.
type Limit struct {
	Bytes   int64
	Percent float64 // used where Bytes is 0
	// Setting is how the limit is called where it is set, for messages.
	Setting string
}

// Check refuses to write a number of bytes below a path if less would be free then than
// is to be. The error is both unix.ENOSPC and errdefs.ErrResourceExhausted. It is a
// look, and no reservation.
func (l Limit) Check(path string, wanted int64) error {
	if l.Bytes == 0 && l.Percent == 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("looking for room at %s: %w", path, err)
	}
	free, keep := int64(st.Bavail)*st.Bsize, l.Bytes
	if keep == 0 {
		keep = int64(float64(st.Blocks) * float64(st.Bsize) * l.Percent / 100)
	}
	if free-wanted >= keep {
		return nil
	}
	return fmt.Errorf("%w at %s: %s are free, of which %s keeps %s, and %s are needed: remove what is not used (system prune): %w",
		unix.ENOSPC, path, human(free), l.Setting, human(keep), human(wanted), errdefs.ErrResourceExhausted)
}

func human(bytes int64) string { return units.BytesSize(float64(bytes)) }

// Meter looks for room while bytes pass.
type Meter struct {
	Limit
	Path string
	left int64 // until the next look
}

// Pass is called before bytes are written, with their number.
func (m *Meter) Pass(bytes int) error {
	if m.left -= int64(bytes); m.left > 0 {
		return nil
	}
	if err := m.Check(m.Path, int64(bytes)); err != nil {
		return err
	}
	m.left = every
	return nil
}

// Reader is a reader that fails when there is no room for what is made of it.
func (m *Meter) Reader(in io.Reader) io.Reader { return &reader{in, m} }

type reader struct {
	in    io.Reader
	meter *Meter
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	if full := r.meter.Pass(n); full != nil {
		return 0, full
	}
	return n, err
}
