package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func line(text, stream string, at time.Time) string {
	body, _ := json.Marshal(text)
	return fmt.Sprintf(`{"log":%s,"stream":"%s","time":"%s"}`+"\n", body, stream, at.UTC().Format(time.RFC3339Nano))
}

func logOf(t *testing.T, files ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x-json.log")
	for i, content := range files { // the newest first
		name := path
		if i > 0 {
			name = fmt.Sprintf("%s.%d", path, i)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func read(t *testing.T, path string, o Options) string {
	t.Helper()
	var out bytes.Buffer
	o.Raw = true
	if err := Copy(context.Background(), path, o, &out, nil); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestCopySelects(t *testing.T) {
	base := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	path := logOf(t,
		line("three\n", "stdout", base.Add(2*time.Second))+line("four \u00e9 \"quoted\"\n", "stderr", base.Add(3*time.Second))+`{"log":"cut by a cra`,
		line("one\n", "stdout", base)+line("two\n", "stderr", base.Add(time.Second)),
	)
	all := Options{Stdout: true, Stderr: true, Tail: -1}
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"all":             {func(*Options) {}, "one\ntwo\nthree\nfour é \"quoted\"\n"},
		"stdout":          {func(o *Options) { o.Stderr = false }, "one\nthree\n"},
		"tail 1":          {func(o *Options) { o.Tail = 1 }, "four é \"quoted\"\n"},
		"tail 3":          {func(o *Options) { o.Tail = 3 }, "two\nthree\nfour é \"quoted\"\n"},
		"tail 0":          {func(o *Options) { o.Tail = 0 }, ""},
		"tail 99":         {func(o *Options) { o.Tail = 99 }, "one\ntwo\nthree\nfour é \"quoted\"\n"},
		"tail 1 stdout":   {func(o *Options) { o.Tail, o.Stderr = 1, false }, "three\n"},
		"since":           {func(o *Options) { o.Since = base.Add(2 * time.Second) }, "three\nfour é \"quoted\"\n"},
		"until":           {func(o *Options) { o.Until = base.Add(time.Second) }, "one\ntwo\n"},
		"with timestamps": {func(o *Options) { o.Timestamps, o.Tail = true, 1 }, "2026-01-02T03:04:08.000000600Z four é \"quoted\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			o := all
			c.change(&o)
			if got := read(t, path, o); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestFramesNameTheStream(t *testing.T) {
	path := logOf(t, line("out\n", "stdout", time.Now())+line("err\n", "stderr", time.Now()))
	var out bytes.Buffer
	if err := Copy(context.Background(), path, Options{Stdout: true, Stderr: true, Tail: -1}, &out, nil); err != nil {
		t.Fatal(err)
	}
	if want := "\x01\x00\x00\x00\x00\x00\x00\x04out\n\x02\x00\x00\x00\x00\x00\x00\x04err\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestFollowThroughRotation(t *testing.T) {
	path := logOf(t, line("1\n", "stdout", time.Now()))
	done := make(chan struct{})
	var out bytes.Buffer
	copied := make(chan error, 1)
	go func() {
		copied <- Copy(context.Background(), path, Options{Follow: true, Stdout: true, Tail: -1, Raw: true}, &out, done)
	}()
	appendTo := func(text string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := f.WriteString(line(text, "stdout", time.Now())); err != nil {
			t.Error(err)
		}
		_ = f.Close()
	}
	var want strings.Builder
	want.WriteString("1\n")
	for i := range 200 {
		text := fmt.Sprintf("line %d\n", i)
		want.WriteString(text)
		appendTo(text)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	want.WriteString("after\n")
	appendTo("after\n")
	close(done)
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
	if out.String() != want.String() {
		t.Errorf("got %d bytes, want %d", out.Len(), want.Len())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(line("hello \u2028 \x00 \"\\\n", "stdout", time.Unix(0, 0))))
	f.Add([]byte(`{"log":"\ud83d\ude00","stream":"stderr","time":"x"}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		own, _, ok := parseOwn(p, nil)
		if !ok {
			return
		}
		var want struct{ Log, Stream, Time string }
		if err := json.Unmarshal(p, &want); err != nil {
			return // our form is a subset only of what the monitor writes
		}
		if string(own.text) != want.Log || own.stream != want.Stream {
			t.Errorf("%q reads %q, encoding/json says %q", p, own.text, want.Log)
		}
	})
}

// TestDetails reads attributes as Docker shows them, from every form of an entry.
func TestDetails(t *testing.T) {
	path := logOf(t, `{"log":"own\n","stream":"stdout","attrs":{"b":"x y","a":"}\",\""},"time":"2026-01-02T03:04:05Z"}
{"time":"2026-01-02T03:04:05Z","attrs":{"tag":"other order"},"stream":"stdout","log":"another's\n"}
{"log":"none\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}
{"log":"cut","stream":"stdout","attrs":{"a":"
`)
	o := Options{Stdout: true, Tail: -1}
	if got := read(t, path, o); got != "own\nanother's\nnone\n" {
		t.Errorf("without details: %q", got)
	}
	o.Details, o.Timestamps = true, true
	const at = "2026-01-02T03:04:05.000000000Z "
	want := at + "a=%7D%22%2C%22,b=x+y own\n" + at + "tag=other+order another's\n" + at + " none\n"
	if got := read(t, path, o); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
