package logs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/url"
	"slices"
	"time"
)

// Options select what is read and how it is written.
type Options struct {
	Follow       bool
	Since, Until time.Time // zero: no bound
	Tail         int       // lines from the end; negative: all
	Timestamps   bool
	Details      bool // each line begins with its attributes
	Stdout       bool
	Stderr       bool
	Raw          bool // bytes as they are (a terminal's) instead of stdcopy frames
}

// Copy writes a log to w. With Follow it goes on until done is closed and
// everything written before that has been read, or ctx ends. A log that does not
// exist is empty.
func Copy(ctx context.Context, path string, o Options, w io.Writer, done <-chan struct{}) error {
	c := &copier{options: o, out: bufio.NewWriterSize(w, 64<<10)}
	defer func() {
		if c.file != nil {
			_ = c.file.Close()
		}
	}()
	var watch *watcher
	if o.Follow {
		var err error
		if watch, err = newWatcher(path); err != nil {
			return err
		}
		defer watch.close()
	}
	if err := c.existing(ctx, path); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if err := c.out.Flush(); err != nil {
		return err
	}
	if !o.Follow {
		return nil
	}
	return c.follow(ctx, path, watch, done)
}

// errEnough ends reading: entries from here on are after Until.
var errEnough = errors.New("enough")

type copier struct {
	options Options
	out     *bufio.Writer
	file    *file  // the newest, read up to offset
	attrs   []byte // of the last line
	details []byte // what these are written as
	partial []byte // a line whose end is not written yet
	scratch []byte
}

// existing copies what is in the files now and keeps the newest open.
func (c *copier) existing(ctx context.Context, path string) error {
	list, err := chain(path)
	if err != nil {
		return err
	}
	if c.options.Tail >= 0 {
		from, offset, err := tail(list, c.options.Tail, c.wanted)
		if err == nil && from < len(list) {
			_, err = list[from].Seek(offset, io.SeekStart)
		}
		if err != nil {
			closeAll(list)
			return err
		}
		closeAll(list[:from])
		list = list[from:]
	}
	return c.readAll(ctx, list)
}

// readAll copies files, the oldest first, and keeps the last one open. All others
// are complete.
func (c *copier) readAll(ctx context.Context, list []*file) error {
	for i, f := range list {
		if c.file != nil {
			_ = c.file.Close()
		}
		c.file, c.partial = f, c.partial[:0] // a line cut by a crash ends with its file
		err := f.unpack()
		if err == nil {
			err = c.read(ctx, f)
		}
		if err != nil {
			closeAll(list[i+1:])
			return err
		}
	}
	return nil
}

// wanted says whether a raw line counts for Tail.
func (c *copier) wanted(line []byte) bool {
	e, grown, err := parse(line, c.scratch)
	c.scratch = grown
	return err == nil && c.selects(e)
}

func (c *copier) selects(e entry) bool {
	if e.stream == "stdout" && !c.options.Stdout || e.stream == "stderr" && !c.options.Stderr {
		return false
	}
	return c.options.Since.IsZero() || !e.at().Before(c.options.Since)
}

// read copies complete lines up to the file's present end.
func (c *copier) read(ctx context.Context, f *file) error {
	buffer := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.Read(buffer)
		if n > 0 {
			if err := c.lines(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *copier) lines(p []byte) error {
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			c.partial = append(c.partial, p...)
			return nil
		}
		line := p[:i]
		if len(c.partial) > 0 {
			c.partial = append(c.partial, line...)
			line = c.partial
		}
		if err := c.line(line); err != nil {
			return err
		}
		c.partial = c.partial[:0]
		p = p[i+1:]
	}
}

// line writes one entry. A line that cannot be read, cut by a crash, is passed
// over.
func (c *copier) line(line []byte) error {
	e, grown, err := parse(line, c.scratch)
	c.scratch = grown
	if err != nil || !c.selects(e) {
		return nil //nolint:nilerr // a cut line is no reason to hide the others
	}
	if until := c.options.Until; !until.IsZero() && e.at().After(until) {
		return errEnough
	}
	size := len(e.text)
	if c.options.Timestamps {
		size += timestampSize + 1
	}
	if c.options.Details {
		if err := c.detail(e.attrs); err != nil {
			return nil //nolint:nilerr // not an entry, as above
		}
		size += len(c.details)
	}
	if !c.options.Raw {
		header := [8]byte{1}
		if e.stream == "stderr" {
			header[0] = 2
		}
		binary.BigEndian.PutUint32(header[4:], uint32(size))
		if _, err := c.out.Write(header[:]); err != nil {
			return err
		}
	}
	if c.options.Timestamps {
		if _, err := c.out.WriteString(e.at().UTC().Format(timestampFormat) + " "); err != nil {
			return err
		}
	}
	if c.options.Details {
		if _, err := c.out.Write(c.details); err != nil {
			return err
		}
	}
	_, err = c.out.Write(e.text)
	return err
}

// detail writes attributes as Docker's --details does: sorted, escaped as in the
// query of a URL, with commas between them and a space behind.
func (c *copier) detail(attrs []byte) error {
	if bytes.Equal(attrs, c.attrs) && len(c.details) > 0 {
		return nil // all lines of a container have the same
	}
	var values map[string]string
	if len(attrs) > 0 {
		if err := json.Unmarshal(attrs, &values); err != nil {
			return err
		}
	}
	c.attrs, c.details = append(c.attrs[:0], attrs...), c.details[:0]
	for i, key := range slices.Sorted(maps.Keys(values)) {
		if i > 0 {
			c.details = append(c.details, ',')
		}
		c.details = append(append(append(c.details, url.QueryEscape(key)...), '='), url.QueryEscape(values[key])...)
	}
	c.details = append(c.details, ' ')
	return nil
}

// timestampFormat is Docker's: RFC 3339 with all nine digits, so that lines are
// aligned.
const (
	timestampFormat = "2006-01-02T15:04:05.000000000Z07:00"
	timestampSize   = len("2006-01-02T15:04:05.000000000Z")
)

// follow copies what is written from now on.
func (c *copier) follow(ctx context.Context, path string, watch *watcher, done <-chan struct{}) error {
	var until <-chan time.Time
	if !c.options.Until.IsZero() {
		timer := time.NewTimer(time.Until(c.options.Until))
		defer timer.Stop()
		until = timer.C
	}
	for {
		last := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-until:
			return nil
		case <-done:
			last = true // read once more: the end came after the output
		case <-watch.changed:
		}
		if err := c.catchUp(ctx, path); err != nil {
			if errors.Is(err, errEnough) {
				return c.out.Flush()
			}
			return err
		}
		if err := c.out.Flush(); err != nil || last {
			return err
		}
	}
}

// catchUp reads to the end of the log, through rotations.
func (c *copier) catchUp(ctx context.Context, path string) error {
	for {
		if c.file == nil {
			list, err := chain(path)
			if err != nil {
				return err
			}
			return c.readAll(ctx, list)
		}
		if err := c.read(ctx, c.file); err != nil {
			return err
		}
		list, err := newer(path, c.file)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return c.rewindIfEmptied()
		}
		// Rotated. What was written to the old file before that may have come after it
		// was read above; it gets no more.
		if err := c.read(ctx, c.file); err != nil {
			closeAll(list)
			return err
		}
		if err := c.readAll(ctx, list); err != nil {
			return err
		}
	}
}

// rewindIfEmptied starts again when the file was emptied in place, as logrotate's
// copytruncate does.
func (c *copier) rewindIfEmptied() error {
	short, err := emptied(c.file)
	if err != nil || !short {
		return err
	}
	c.partial = c.partial[:0]
	_, err = c.file.Seek(0, io.SeekStart)
	return err
}
