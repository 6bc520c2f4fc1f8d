package supervise

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// oomWatch finds out whether the kernel killed processes of the container for want of
// memory.
type oomWatch struct {
	file string // with a line "oom_kill N"; empty: nobody asks
	// above is what the group above counted, with all groups below it, when the
	// container was made. -1: it does not count them.
	above int64
}

func newOOMWatch(file string) oomWatch {
	w := oomWatch{file: file, above: -1}
	// Only cgroup v2 counts with groups below.
	if n, ok := oomKills(w.fileAbove()); ok && filepath.Base(file) == "memory.events" {
		w.above = n
	}
	return w
}

func (w oomWatch) fileAbove() string {
	dir, name := filepath.Split(w.file)
	return filepath.Join(filepath.Dir(filepath.Clean(dir)), name)
}

// killed answers for a container that has ended with a code. systemd removes a
// container's group with its last process, perhaps before its count could be read.
// Then one that died of SIGKILL while kills were counted above it was the victim.
func (w oomWatch) killed(code int) bool {
	if w.file == "" {
		return false
	}
	if n, ok := oomKills(w.file); ok {
		return n > 0
	}
	now, ok := oomKills(w.fileAbove())
	return ok && w.above >= 0 && now > w.above && code == 128+int(unix.SIGKILL)
}

// oomKills reads the count.
func oomKills(file string) (int64, bool) {
	body, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(body) {
		if count, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("oom_kill ")); ok {
			n, err := strconv.ParseInt(string(count), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
