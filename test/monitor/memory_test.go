package monitor

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/test/private"
)

// mostPrivate is what an idle monitor may have for itself, in KiB. Pages of the
// program's file are shared by all monitors, and private only to a lone one:
// there are two here.
const mostPrivate = 1536

// collected is what Go's collector keeps for itself once it has run, as it does
// after a burst of output.
const collected = 256

// TestAnIdleMonitorIsSmall measures monitors whose program has been started: one
// that only watches, and one that had work to do, twenty megabytes of output to
// the log and to a client that stays.
func TestAnIdleMonitorIsSmall(t *testing.T) {
	idle := start(t, options{args: []string{"/bin/sleep", "1000"}, streams: monitor.Streams{Log: &monitor.Log{Path: filepath.Join(t.TempDir(), "log")}}})
	idle.run()
	log := &monitor.Log{Path: filepath.Join(t.TempDir(), "log")}
	busy := start(t, options{
		args:    []string{"/bin/sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x; echo; exec sleep 1000"},
		streams: monitor.Streams{Log: log, Stdin: true},
	})
	stream := busy.attach(monitor.AttachOptions{Stdin: true, Stdout: true, Stderr: true})
	busy.run()
	go func() { _, _ = io.Copy(io.Discard, stream) }()
	eventually(t, func() error {
		if info, err := os.Stat(log.Path); err != nil || info.Size() < 20000000 {
			return os.ErrNotExist
		}
		return nil
	})
	for name, m := range map[string]*instance{"idle": idle, "after work": busy} {
		kib, most := 0, mostPrivate
		if m == busy {
			most += collected
		}
		for deadline := time.Now().Add(private.Patience(30 * time.Second)); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if kib = privateMemory(t, m.cmd.Pid); kib <= most {
				break
			}
		}
		t.Logf("%s: %d KiB", name, kib)
		if kib > most {
			t.Errorf("%s: the monitor has %d KiB for itself, at most %d are allowed\n%s", name, kib, most, m.complaints())
		}
	}
}
