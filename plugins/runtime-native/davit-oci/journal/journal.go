// Package journal writes the log of one command in the forms that runc's callers
// parse: logrus's text, or JSON objects with level, msg and time.
package journal

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// Journal is an open log.
type Journal struct {
	out   io.Writer
	file  *os.File // nil: the log is standard error
	json  bool
	debug bool
}

// Open appends to a file, or with an empty path writes to standard error. The
// format is "text" or "json".
func Open(path, format string, debug bool) (*Journal, error) {
	j := &Journal{out: os.Stderr, debug: debug}
	switch format {
	case "", "text":
	case "json":
		j.json = true
	default:
		return nil, fmt.Errorf("invalid log-format: %s", format)
	}
	if path == "" {
		return j, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
	if err != nil {
		return nil, err
	}
	j.out, j.file = f, f
	return j, nil
}

// Close ends the journal.
func (j *Journal) Close() {
	if j.file != nil {
		_ = j.file.Close()
	}
}

// Error logs why the command failed; people see it on standard error in any case.
func (j *Journal) Error(message string) {
	j.write("error", message)
	if j.file != nil {
		fmt.Fprintln(os.Stderr, message)
	}
}

// Warn logs what went wrong without making the command fail.
func (j *Journal) Warn(format string, args ...any) { j.write("warning", fmt.Sprintf(format, args...)) }

// Debug logs what happens, if that was asked for.
func (j *Journal) Debug(format string, args ...any) {
	if j.debug {
		j.write("debug", fmt.Sprintf(format, args...))
	}
}

func (j *Journal) write(level, message string) {
	now := time.Now().Format(time.RFC3339)
	if !j.json {
		fmt.Fprintf(j.out, "time=%q level=%s msg=%q\n", now, level, message)
		return
	}
	line, err := json.Marshal(struct {
		Level   string `json:"level"`
		Message string `json:"msg"`
		Time    string `json:"time"`
	}{level, message, now})
	if err == nil {
		_, _ = j.out.Write(append(line, '\n'))
	}
}
