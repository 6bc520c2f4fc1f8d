package proc

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"
)

func TestReadStat(t *testing.T) {
	own, err := ReadStat(os.Getpid())
	if err != nil || own.State != 'R' && own.State != 'S' || own.Flags&Exiting != 0 {
		t.Errorf("of this process: %+v, %v", own, err)
	}
	child := exec.CommandContext(t.Context(), "true")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	stat, err := ReadStat(child.Process.Pid)
	if err != nil || stat.Start == "" {
		t.Errorf("of a child that nobody waited for: %+v, %v", stat, err)
	}
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadStat(child.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a child that is gone: %v", err)
	}
}

func TestParse(t *testing.T) {
	line := "42 (a) b (c) S 1 42 42 0 -1 4194564 10 0 0 0 0 0 0 0 20 0 1 0 12345 1000 10\n"
	if got, err := parse([]byte(line)); err != nil || got != (Stat{'S', 1, 4194564, "12345"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, _ := parse([]byte(line)); got.Flags&Exiting == 0 {
		t.Errorf("flags %#x say that it goes on", got.Flags)
	}
	for _, line := range []string{"", ")", "1 (x) S 1", "1 (x) S 1 1 1 0 -1 many 10 0 0 0 0 0 0 0 20 0 1 0 12345"} {
		if got, err := parse([]byte(line)); err == nil {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("42 (a) b (c) S 1 42 42 0 -1 4194564 10 0 0 0 0 0 0 0 20 0 1 0 12345 1000 10\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if s, err := parse(body); err == nil && (s.State == 0 || s.Start == "") {
			t.Errorf("%q: %+v", body, s)
		}
	})
}
