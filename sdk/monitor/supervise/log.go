package supervise

import (
	"bytes"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/hook"
)

const (
	// maxLine is where a long line is cut into parts, as Docker's daemon does.
	maxLine = 16 << 10
	// flushAt is how much is gathered before it is written, within one read.
	flushAt = 128 << 10
	// logMode is of files that hold what containers say.
	logMode = 0o640
)

// logFile writes Docker's json-file format. One log takes both streams.
type logFile struct {
	config monitor.Log
	mu     sync.Mutex
	file   *os.File
	size   int64  // of the file, without buffer
	buffer []byte // whole entries that are not written yet
	failed bool   // a failure was told; a full disk must not stop the container
	packer packer
}

// openLog opens a container's log; rotated files are compressed by processes that
// run starts.
func openLog(config *monitor.Log, run hook.Starter) (*logFile, error) {
	if config == nil {
		return nil, nil
	}
	l := &logFile{config: *config, packer: packer{run: run}}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.config.Path, os.O_CREATE|os.O_RDWR|os.O_APPEND, logMode)
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
	tail   []byte // what follows the text of an entry, with the time of this write
	// first is the tail of a long line's first part: the others have the same time.
	first []byte
}

// write logs complete lines and keeps the rest for later.
func (s *splitter) write(p []byte, now time.Time) {
	if s.log == nil {
		return
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.stamp(now)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n') + 1
		whole := end > 0
		if !whole {
			end = len(p)
		}
		if room := maxLine - len(s.rest); end >= room {
			whole = end == room && whole
			end = room
		} else if !whole {
			s.rest = append(s.rest, p...)
			break
		}
		text := p[:end]
		if len(s.rest) > 0 {
			s.rest = append(s.rest, text...)
			text = s.rest
		}
		if whole {
			s.entry(text)
			s.rest = s.rest[:0]
		} else {
			// A character is not cut in two: its beginning waits for its end.
			cut := len(text) - unfinished(text)
			s.entry(text[:cut])
			s.rest = append(s.rest[:0], text[cut:]...)
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
	s.stamp(now)
	s.entry(s.rest)
	s.rest = s.rest[:0]
	s.log.flush()
}

// stamp makes the end of the entries of one write.
func (s *splitter) stamp(now time.Time) {
	s.tail = append(append(append(s.tail[:0], `","stream":"`...), s.stream...), '"')
	if attributes := s.log.config.Attributes; len(attributes) > 0 {
		s.tail = append(append(s.tail, `,"attrs":`...), attributes...)
	}
	s.tail = append(s.tail, `,"time":"`...)
	s.tail = append(now.UTC().AppendFormat(s.tail, time.RFC3339Nano), "\"}\n"...)
}

// entry adds a line, or a part of one, to the buffer.
func (s *splitter) entry(text []byte) {
	l := s.log
	begin := len(l.buffer)
	tail := s.tail
	if len(s.first) > 0 {
		tail = s.first
	}
	if text[len(text)-1] == '\n' {
		s.first = s.first[:0]
	} else if len(s.first) == 0 {
		s.first = append(s.first, tail...)
	}
	l.buffer = append(appendEscaped(append(l.buffer, `{"log":"`...), text), tail...)
	if limit := l.config.MaxSize; limit > 0 && l.size+int64(len(l.buffer)) > limit && l.size+int64(begin) > 0 {
		last := append([]byte(nil), l.buffer[begin:]...)
		l.buffer = l.buffer[:begin]
		l.flush()
		l.rotate()
		l.buffer = append(l.buffer, last...)
	}
	if len(l.buffer) >= flushAt {
		l.flush()
	}
}

// unfinished is the length of a multi-byte character at p's end whose last bytes
// are missing.
func unfinished(p []byte) int {
	for n := 1; n < utf8.UTFMax && n < len(p); n++ {
		if c := p[len(p)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(p[len(p)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// flush writes the buffer. What cannot be written is lost, but never half an
// entry stays that would spoil the next.
func (l *logFile) flush() {
	if len(l.buffer) == 0 {
		return
	}
	buffer := l.buffer
	l.buffer = l.buffer[:0]
	if l.file == nil {
		if err := l.open(); err != nil { // rotation failed, and still would
			return
		}
	}
	n, err := l.file.Write(buffer)
	if err != nil {
		whole := bytes.LastIndexByte(buffer[:n], '\n') + 1
		if whole < n {
			_ = l.file.Truncate(l.size + int64(whole))
		}
		n = whole
	}
	l.size += int64(n)
	l.report(err)
}

// report complains once that lines are being lost.
func (l *logFile) report(err error) {
	if err != nil && !l.failed {
		complain("log", err)
	}
	l.failed = err != nil
}

// end is called when nothing will be logged any more.
func (l *logFile) end() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.packer.stop()
}

// release gives back the buffer of a burst.
func (l *logFile) release() {
	if l == nil {
		return
	}
	l.mu.Lock()
	l.buffer = nil
	l.mu.Unlock()
}
