package e2e

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/test/private"
)

// terminal is a command on a terminal of its own (33 rows, 77 columns).
type terminal struct {
	*client
	master *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	seen strings.Builder
	at   int // what expect has passed
}

func openTerminal(c *client, args ...string) *terminal {
	c.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		c.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		c.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		c.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		c.Fatal(err)
	}
	defer func() { _ = slave.Close() }()
	p := &terminal{client: c, master: master}
	p.resize(33, 77)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	p.cmd = c.engine.Command(ctx, c.name, args...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		c.Fatal(err)
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			p.mu.Lock()
			p.seen.Write(buffer[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	c.Cleanup(func() {
		cancel()
		_ = master.Close()
		<-finished
	})
	return p
}

func (p *terminal) resize(rows, columns uint16) {
	p.Helper()
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		p.Fatal(err)
	}
	if p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Signal(unix.SIGWINCH)
	}
}

func (p *terminal) send(text string) {
	p.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		p.Fatal(err)
	}
}

// reads waits for a text behind the last one found.
func (p *terminal) reads(text string, patience time.Duration) bool {
	deadline := time.Now().Add(patience)
	for {
		p.mu.Lock()
		if i := strings.Index(p.seen.String()[p.at:], text); i >= 0 {
			p.at += i + len(text)
			p.mu.Unlock()
			return true
		}
		p.mu.Unlock()
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *terminal) expect(text string) {
	p.Helper()
	if !p.reads(text, private.Patience(30*time.Second)) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.Fatalf("the terminal never showed %q, but\n%s", text, p.seen.String()[p.at:])
	}
}

// wait answers the command's exit code.
func (p *terminal) wait() int {
	p.Helper()
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 { // every process, or this one's group
		t.Fatalf("there is no process %d to kill", pid)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
