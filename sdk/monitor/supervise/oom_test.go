package supervise

import (
	"os"
	"path/filepath"
	"testing"
)

// The container's own count decides while it is there, that of the group above it and
// the exit code when it is gone.
func TestOOMWatch(t *testing.T) {
	for _, c := range []struct {
		name               string
		own, before, after string
		gone               bool
		code               int
		want               bool
	}{
		{name: "memory.events", own: "oom 1\noom_kill 1\n", before: "oom_kill 0\n", code: 0, want: true},
		{name: "memory.events", own: "oom_kill 0\n", before: "oom_kill 4\n", after: "oom_kill 5\n", code: 137},
		{name: "memory.events", gone: true, before: "oom_kill 4\n", after: "oom_kill 5\n", code: 137, want: true},
		{name: "memory.events", gone: true, before: "oom_kill 4\n", after: "oom_kill 5\n", code: 1},
		{name: "memory.events", gone: true, before: "oom_kill 4\n", after: "oom_kill 4\n", code: 137},
		{name: "memory.events", gone: true, code: 137},
		{name: "memory.oom_control", own: "oom_kill_disable 0\noom_kill 2\n", before: "oom_kill 0\n", code: 0, want: true},
		{name: "memory.oom_control", gone: true, before: "oom_kill 0\n", after: "oom_kill 1\n", code: 137},
	} {
		dir := t.TempDir()
		own, above := filepath.Join(dir, "group", c.name), filepath.Join(dir, c.name)
		if err := os.Mkdir(filepath.Dir(own), 0o700); err != nil {
			t.Fatal(err)
		}
		write := func(file, text string) {
			if text == "" {
				return
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(own, "oom_kill 0\n")
		write(above, c.before)
		w := newOOMWatch(own)
		write(above, c.after)
		write(own, c.own)
		if c.gone {
			if err := os.RemoveAll(filepath.Dir(own)); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.killed(c.code); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if newOOMWatch("").killed(137) {
		t.Error("killed though nobody asks")
	}
}
