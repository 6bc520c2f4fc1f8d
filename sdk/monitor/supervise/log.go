package supervise

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/davit-engine/davit/sdk/monitor"
)

// maxLine is where a long line is cut into parts, as Docker's daemon does.
const maxLine = 16 << 10

// logFile writes Docker's json-file format. One log takes both streams.
type logFile struct {
	config monitor.Log
	mu     sync.Mutex
	file   *os.File
	size   int64
	buffer []byte
	failed error // the present failure; a full disk must not stop the container
}

func openLog(config *monitor.Log) (*logFile, error) {
	if config == nil {
		return nil, nil
	}
	l := &logFile{config: *config}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.config.Path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	l.file, l.size = f, info.Size()
	return nil
}

// splitter cuts one stream into lines.
type splitter struct {
	log    *logFile
	stream string
	rest   []byte // the beginning of a line whose end has not come yet
}

// write logs complete lines and keeps the rest for later.
func (s *splitter) write(p []byte, now time.Time) {
	if s.log == nil {
		return
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n') + 1
		if room := maxLine - len(s.rest); end > room || end == 0 && len(p) >= room {
			end = room
			s.line(p[:end], now)
		} else if end > 0 {
			s.line(p[:end], now)
		} else {
			s.rest = append(s.rest, p...)
			break
		}
		p = p[end:]
	}
	s.log.flush()
}

// close logs what is left of an unfinished line.
func (s *splitter) close(now time.Time) {
	if s.log == nil || len(s.rest) == 0 {
		return
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.line(nil, now)
	s.log.flush()
}

func (s *splitter) line(p []byte, now time.Time) {
	l := s.log
	begin := len(l.buffer)
	l.buffer = append(l.buffer, `{"log":"`...)
	if len(s.rest) > 0 {
		// Joined first: a multi-byte character may be cut between the two.
		s.rest = append(s.rest, p...)
		p = s.rest
	}
	l.buffer = appendEscaped(l.buffer, p)
	s.rest = s.rest[:0]
	l.buffer = append(l.buffer, `","stream":"`...)
	l.buffer = append(l.buffer, s.stream...)
	l.buffer = append(l.buffer, `","time":"`...)
	l.buffer = now.UTC().AppendFormat(l.buffer, time.RFC3339Nano)
	l.buffer = append(l.buffer, "\"}\n"...)
	if entry := int64(len(l.buffer) - begin); l.config.MaxSize > 0 && l.size+int64(begin)+entry > l.config.MaxSize && l.size+int64(begin) > 0 {
		tail := append([]byte(nil), l.buffer[begin:]...)
		l.buffer = l.buffer[:begin]
		l.flush()
		l.rotate()
		l.buffer = append(l.buffer, tail...)
	}
	if len(l.buffer) > 256<<10 {
		l.flush()
	}
}

func (l *logFile) flush() {
	if len(l.buffer) == 0 {
		return
	}
	if l.file == nil && l.open() != nil { // rotation failed, and still would
		l.buffer = l.buffer[:0]
		return
	}
	n, err := l.file.Write(l.buffer)
	l.size += int64(n)
	if err != nil {
		l.complain(err)
	} else {
		l.failed = nil
	}
	l.buffer = l.buffer[:0]
}

// complain says once that lines are being lost.
func (l *logFile) complain(err error) {
	if l.failed == nil {
		fmt.Fprintf(os.Stderr, "log %s: %v\n", l.config.Path, err)
	}
	l.failed = err
}

// rotate renames the files one number up and opens a new one.
func (l *logFile) rotate() {
	_ = l.file.Close()
	path := l.config.Path
	if l.config.MaxFile <= 1 {
		_ = os.Truncate(path, 0)
	} else {
		for n := l.config.MaxFile - 1; n > 1; n-- {
			_ = os.Rename(fmt.Sprintf("%s.%d", path, n-1), fmt.Sprintf("%s.%d", path, n))
		}
		_ = os.Rename(path, path+".1")
	}
	if err := l.open(); err != nil {
		l.file = nil
		l.complain(fmt.Errorf("rotating: %w", err))
	}
}

const hex = "0123456789abcdef"

// appendEscaped appends p as the inside of a JSON string; bytes that are no
// UTF-8 become U+FFFD.
func appendEscaped(dst, p []byte) []byte {
	start := 0
	for i := 0; i < len(p); {
		c := p[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(p[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, p[start:i]...), `\ufffd`...)
				i++
				start = i
				continue
			}
			if r == '\u2028' || r == '\u2029' { // as encoding/json does
				dst = append(append(dst, p[start:i]...), `\u202`...)
				dst = append(dst, hex[r&0xf])
				i += size
				start = i
				continue
			}
			i += size
			continue
		}
		dst = append(dst, p[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
		i++
		start = i
	}
	return append(dst, p[start:]...)
}
