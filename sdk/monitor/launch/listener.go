package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// Listener is the agent that decides on a stage's system calls: a unix socket
// that receives the listener's descriptor with a ContainerProcessState
// (runtime-spec, config-linux.md, "Seccomp").
type Listener struct {
	Path     string `json:"path"`
	Metadata string `json:"metadata,omitempty"`
	State    State  `json:"state"`
}

// ForExec is the listener of an exec in the running container of that init; nil
// stays nil.
func (l *Listener) ForExec(init int) *Listener {
	if l == nil {
		return nil
	}
	exec := *l
	exec.State.Status, exec.State.PID = "running", init
	return &exec
}

// State is the runtime-spec's state of a container.
type State struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Status      string            `json:"status"`
	PID         int               `json:"pid,omitempty"`
	Bundle      string            `json:"bundle"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// processState is the runtime-spec's ContainerProcessState.
type processState struct {
	Version  string   `json:"ociVersion"`
	FDs      []string `json:"fds"`
	PID      int      `json:"pid"`
	Metadata string   `json:"metadata,omitempty"`
	State    State    `json:"state"`
}

const (
	// agentPatience bounds the talk with the agent. It is shorter than the stage's.
	agentPatience = 10 * time.Second
	// takePatience bounds the wait for a filter to be installed.
	takePatience = 20 * time.Second
)

// handOver takes the descriptor of the filter that the stage is just installing
// and sends it to the agent. The stage goes on when it is there; if it cannot be
// it is killed, because there is no saying what its filter lets it do.
func (l *Listener) handOver(sync *os.File, pid, mailbox int) error {
	defer func() { _ = unix.Close(mailbox) }()
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("opening the stage's process: %w", err)
	}
	defer func() { _ = unix.Close(process) }()
	err = l.take(sync, pid, process, mailbox)
	if err != nil && !errors.Is(err, errStageSpoke) {
		_ = unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0)
	}
	return err
}

// errStageSpoke says that the stage has no filter to hand over, but something to
// say.
var errStageSpoke = errors.New("the stage did not install its filter")

func (l *Listener) take(sync *os.File, pid, process, mailbox int) error {
	words, err := sandbox.MapMailbox(mailbox)
	if err != nil {
		return err
	}
	defer unmap(words)
	agent, err := l.connect()
	if err != nil {
		return err
	}
	defer func() { _ = agent.Close() }()
	if _, err := sync.Write([]byte{sandbox.MessageGo}); err != nil {
		return fmt.Errorf("ordering the filter: %w", err)
	}
	fd := -1
	for end := time.Now().Add(takePatience); fd < 0; {
		if number := words[sandbox.MailboxNumber].Load(); number > 0 {
			if fd, err = unix.PidfdGetfd(process, int(number-1), 0); err != nil {
				return fmt.Errorf("taking the seccomp listener: %w", err)
			}
			break
		}
		spoke := []unix.PollFd{{Fd: int32(sync.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Ppoll(spoke, &unix.Timespec{Nsec: 100_000}, nil); err == nil && n > 0 {
			return errStageSpoke
		}
		if time.Now().After(end) {
			return errors.New("the stage did not install its filter in time")
		}
	}
	defer func() { _ = unix.Close(fd) }()
	if name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err != nil || name != "anon_inode:seccomp notify" {
		return fmt.Errorf("the stage handed over %q, not a seccomp listener: %w", name, err)
	}
	if err := l.send(agent, pid, fd); err != nil {
		words[sandbox.MailboxAnswer].Store(sandbox.AnswerRefused)
		return err
	}
	words[sandbox.MailboxAnswer].Store(sandbox.AnswerTaken)
	return nil
}

func unmap(words *[2]atomic.Uint32) {
	_ = unix.MunmapPtr(unsafe.Pointer(words), sandbox.MailboxSize)
}

func (l *Listener) connect() (*net.UnixConn, error) {
	dialer := net.Dialer{Timeout: agentPatience}
	conn, err := dialer.DialContext(context.Background(), "unix", l.Path)
	if err != nil {
		return nil, fmt.Errorf("connecting to the seccomp listener: %w", err)
	}
	if err := conn.SetDeadline(time.Now().Add(agentPatience)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// send gives the agent the descriptor and says whose it is.
func (l *Listener) send(agent *net.UnixConn, pid, fd int) error {
	state := processState{Version: l.State.Version, FDs: []string{"seccompFd"}, PID: pid, Metadata: l.Metadata, State: l.State}
	if state.State.PID == 0 {
		state.State.PID = pid
	}
	body, err := json.Marshal(state)
	if err != nil {
		return err
	}
	n, _, err := agent.WriteMsgUnix(body, unix.UnixRights(fd), nil)
	if err == nil && n < len(body) {
		_, err = agent.Write(body[n:])
	}
	if err != nil {
		return fmt.Errorf("sending the seccomp listener to %s: %w", l.Path, err)
	}
	return nil
}
