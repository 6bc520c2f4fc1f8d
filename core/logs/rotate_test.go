package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// slowly makes a follower fall behind the rotations.
type slowly struct {
	mu    sync.Mutex
	bytes bytes.Buffer
}

func (s *slowly) Write(p []byte) (int, error) {
	time.Sleep(300 * time.Microsecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes.Write(p)
}

// TestAFollowerLosesNothingToRotation rotates faster than a follower reads: as
// long as the files are there, each line comes once and in order.
func TestAFollowerLosesNothingToRotation(t *testing.T) {
	const rotations, lines = 60, 50
	path := logOf(t, "")
	done := make(chan struct{})
	copied := make(chan error, 1)
	var out slowly
	go func() {
		copied <- Copy(context.Background(), path, Options{Follow: true, Stdout: true, Tail: -1, Raw: true}, &out, done)
	}()
	var want strings.Builder
	number := 0
	for range rotations {
		var content strings.Builder
		for range lines {
			text := strconv.Itoa(number) + "\n"
			number++
			want.WriteString(text)
			content.WriteString(line(text, "stdout", time.Now()))
		}
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(content.String()); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		for n := rotations + 1; n > 0; n-- {
			if from := fmt.Sprintf("%s.%d", path, n); exists(from) {
				rename(t, from, fmt.Sprintf("%s.%d", path, n+1))
			}
		}
		rename(t, path, path+".1")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	close(done)
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
	if got := out.bytes.String(); got != want.String() {
		t.Errorf("%d lines became %d", number, strings.Count(got, "\n"))
	}
	// And who comes later reads the same.
	if got := read(t, path, Options{Stdout: true, Tail: -1}); got != want.String() {
		t.Errorf("afterwards there are %d lines", strings.Count(got, "\n"))
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkCopy(b *testing.B) {
	entry := line("a line of a usual length, as programs write them all day long\n", "stdout", time.Now())
	path := b.TempDir() + "/x-json.log"
	if err := os.WriteFile(path, []byte(strings.Repeat(entry, 50000)), 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(50000 * len(entry)))
	for b.Loop() {
		if err := Copy(context.Background(), path, Options{Stdout: true, Stderr: true, Tail: -1}, discard{}, nil); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
