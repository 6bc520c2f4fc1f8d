package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
)

// lines turns what a plugin writes into lines of the engine's log: hclog's JSON
// with its level and fields, everything else as it is.
type lines struct {
	log *slog.Logger

	mu       sync.Mutex
	partial  []byte
	tail     []string // the last plain lines: why a process died is often there
	panicked bool     // inside a Go stack trace
}

const (
	maxLine = 64 << 10
	maxTail = 4
)

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte{'\n'})
		l.partial = append(l.partial, line...)
		if whole || len(l.partial) > maxLine {
			l.line(bytes.TrimSpace(l.partial))
			l.partial = l.partial[:0]
		}
		p = rest
	}
	return n, nil
}

func (l *lines) line(line []byte) {
	if len(line) == 0 {
		return
	}
	if line[0] == '{' {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err == nil && fields["@message"] != nil {
			l.structured(fields)
			return
		}
	}
	text := string(line)
	if !l.panicked {
		l.tail = append(l.tail, text)
		if len(l.tail) > maxTail {
			l.tail = l.tail[1:]
		}
	}
	level := slog.LevelInfo
	if strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal error: ") {
		l.panicked = true
	}
	if l.panicked {
		level = slog.LevelError
	}
	l.log.Log(context.Background(), level, text)
}

func (l *lines) structured(fields map[string]any) {
	message, _ := fields["@message"].(string)
	level := slog.LevelInfo
	switch fields["@level"] {
	case "trace":
		level = levelTrace
	case "debug":
		level = slog.LevelDebug
	case "warn":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	}
	if level >= slog.LevelError {
		why := message
		if cause, ok := fields["error"].(string); ok {
			why += ": " + cause
		}
		l.tail = append(l.tail[:0], why)
	}
	attrs := make([]slog.Attr, 0, len(fields))
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if !strings.HasPrefix(key, "@") {
			attrs = append(attrs, slog.Any(key, fields[key]))
		}
	}
	l.log.LogAttrs(context.Background(), level, message, attrs...)
}

// last answers the last plain lines for an error message.
func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.tail, "; ")
}
