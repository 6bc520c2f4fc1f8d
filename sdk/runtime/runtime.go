// Package runtime is the contract of runtime drivers: they turn an OCI
// runtime-spec and a list of mounts into a running container.
//
// Standard input and output never pass through this interface. Create and Exec
// answer the path of a unix socket that speaks the protocol of package
// sdk/monitor; the engine attaches to it and the monitor writes the log.
//
// A process is named by (container ID, exec ID); the empty exec ID is the
// container's init process.
package runtime

import (
	"context"
	"encoding/json"
	"time"

	"github.com/davit-engine/davit/sdk/mount"
)

// Feature flags a driver may announce.
const (
	FeatureExec       = "exec"
	FeaturePause      = "pause"
	FeatureUpdate     = "update"
	FeatureStats      = "stats"
	FeatureCheckpoint = "checkpoint"
)

// IO says what a process's standard streams are.
type IO struct {
	Terminal bool // one pseudo terminal for all three
	Stdin    bool // standard input stays open for an attached client; else /dev/null
	Stdout   bool // always true for init; exec may close them
	Stderr   bool
	// StdinOnce closes stdin when the first attached client with stdin leaves.
	StdinOnce bool
	Width     uint16 // initial size of the terminal in characters; 0: leave
	Height    uint16
	Log       *Log // nil: nothing is logged
}

// Log says where the monitor writes a container's output in Docker's json-file
// format.
type Log struct {
	Path    string // current file; rotated ones get .1, .2, ...
	MaxSize int64  // bytes after which the file is rotated; 0: never
	MaxFile int    // number of files kept, at least 1
	// Attributes are written with every entry as its "attrs", as Docker's log options
	// tag, labels and env do.
	Attributes map[string]string
	Compress   bool // rotated files are compressed by gzip: .1.gz, .2.gz, ...
}

// SubdirOption is the one mount option that davit has beside those of the
// runtime-spec, in mount(8)'s words: a bind mount with "X-mount.subdir=a/b" shows
// what a/b names below its source. Other containers may write there, so it must
// be resolved without leaving the source in the same step as it is mounted
// (openat2 with RESOLVE_BENEATH); a driver that cannot must refuse the container.
const SubdirOption = "X-mount.subdir="

// Create asks for a container.
type Create struct {
	ID string
	// Spec is a complete OCI runtime-spec (config.json). Its root.path is ignored;
	// the root filesystem is given by Rootfs.
	Spec   json.RawMessage
	Rootfs []mount.Mount
	IO     IO
}

// Checkpoint asks for the state of a running container on disk.
type Checkpoint struct {
	ID string
	// Image is the directory that will hold it: an absolute path, not there yet, in
	// a directory that is.
	Image string
	// LeaveRunning lets the container go on afterwards; otherwise it ends.
	LeaveRunning bool
	Connections
}

// Restore asks for a container whose processes come from a checkpoint.
type Restore struct {
	// Create describes the container as for a new one. Its process is not executed.
	// Standard streams must be of the kind (terminal or not) that they were.
	Create
	Image string // directory that Checkpoint made
	Connections
}

// Connections say what a checkpoint takes along that reaches out of the
// container. What is not asked for and there makes the checkpoint fail.
type Connections struct {
	TCPEstablished      bool // TCP connections with both their ends' state; the address must be the same
	ExternalUnixSockets bool // unix sockets connected to somebody outside
	FileLocks           bool // locks on files that others may want
}

// Exec asks for another process in a running container.
type Exec struct {
	ID      string
	ExecID  string
	Process json.RawMessage // OCI runtime-spec "process"
	IO      IO
}

// Process is a created process.
type Process struct {
	PID    int    // in the host's pid namespace
	Socket string // of the monitor that holds its stdio
}

// Exit is how a process ended.
type Exit struct {
	Code      int // 0-255; 128+n for death by signal n
	At        time.Time
	OOMKilled bool
	// Reason says, in words for the user, why Code is not the process's own word:
	// its monitor died, and what was left was killed. Empty: it is.
	Reason string
}

// Status is the state of a container as its runtime knows it.
type Status string

// The states. Unknown means that the driver cannot tell now: never treat it as
// gone.
const (
	StatusCreated Status = "created"
	StatusRunning Status = "running"
	StatusPaused  Status = "paused"
	StatusExited  Status = "exited"
	StatusGone    Status = "gone"
	StatusUnknown Status = "unknown"
)

// State describes one container.
type State struct {
	ID     string
	Status Status
	PID    int
	Socket string
	Exit   *Exit // with StatusExited
}

// The types of events.
const (
	EventExit    = "exit"
	EventOOM     = "oom" // the kernel killed a process for want of memory; the container may go on
	EventPaused  = "paused"
	EventResumed = "resumed"
)

// Event is something that happened to a container. Events are hints: the truth
// is what Wait and Adopt answer.
type Event struct {
	ID     string
	ExecID string
	Type   string // EventExit and so on
	Exit   *Exit
	At     time.Time
}

// Driver runs containers. Errors are of the kinds of containerd/errdefs, plus
// [ErrCommandNotFound] and [ErrNotExecutable] from Start. Every method is
// safe for concurrent use.
type Driver interface {
	// Create sets the container up to the point before its process is executed:
	// monitor, namespaces, cgroup, mounts. Asked again for a container that waits for
	// its start, it answers the same; ErrAlreadyExists if the ID is in use otherwise.
	// A runtime that looks for the program now answers what Start would.
	// On error nothing is left.
	Create(ctx context.Context, c Create) (Process, error)
	// Start executes a created process. It returns when execve has succeeded or
	// with the reason why not; then the process counts as exited. Asked again for a
	// process that runs, it succeeds; ErrFailedPrecondition if it has ended.
	Start(ctx context.Context, id, execID string) error
	// Exec creates, but does not start, another process. Asked again for one that
	// waits for its start, it answers the same; ErrAlreadyExists if the ID is in use
	// otherwise.
	Exec(ctx context.Context, e Exec) (Process, error)
	// Signal sends a signal to a process; with all, to every process of the
	// container. ErrNotFound if the process is gone.
	Signal(ctx context.Context, id, execID string, signal int, all bool) error
	// Wait returns when the process has ended, also if that was long ago.
	Wait(ctx context.Context, id, execID string) (Exit, error)
	// Resize sets the terminal's size in characters.
	Resize(ctx context.Context, id, execID string, width, height uint16) error
	// CloseStdin ends the process's standard input.
	CloseStdin(ctx context.Context, id, execID string) error
	// Pause freezes all processes of the container; Resume thaws them.
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	// Update changes resource limits; resources is the OCI "linux.resources"
	// object, in which only what is set is changed.
	Update(ctx context.Context, id string, resources json.RawMessage) error
	// Stats reads resource usage.
	Stats(ctx context.Context, id string) (Stats, error)
	// Processes lists the host pids of the container.
	Processes(ctx context.Context, id string) ([]int, error)
	// Delete removes a container (or with execID an exec) that has ended, and
	// every trace of it; with force a living one is killed first. It answers the
	// exit if it is known. ErrNotFound if there is none.
	Delete(ctx context.Context, id, execID string, force bool) (*Exit, error)
	// List reports all containers of the driver.
	List(ctx context.Context) ([]State, error)
	// Adopt finds a container again after a restart of engine or driver. It is
	// idempotent and answers StatusGone, not an error, for an unknown ID.
	Adopt(ctx context.Context, id string) (State, error)
	// Events calls fn for each event until ctx ends.
	Events(ctx context.Context, fn func(Event) error) error
}

// Checkpointer is implemented by drivers with FeatureCheckpoint.
type Checkpointer interface {
	// Checkpoint writes the state of all processes of a running or paused container
	// to the directory c.Image, which exists whole or not at all: also if the driver
	// dies meanwhile. ErrAlreadyExists if it is there before. Unless they are to go
	// on, the processes have ended when it returns, as if by SIGKILL. If it fails the
	// container goes on. ErrFailedPrecondition if the container is in another state
	// or holds something that cannot be in a checkpoint; the text says what.
	Checkpoint(ctx context.Context, c Checkpoint) error
	// Restore is Create, but the container's processes are those of a checkpoint: they
	// wait for Start and then go on where they were. The checkpoint stays and may be
	// restored again. ErrNotFound if there is none, ErrInvalidArgument if it is
	// damaged, ErrFailedPrecondition if it and the container do not fit. On error
	// nothing is left.
	Restore(ctx context.Context, r Restore) (Process, error)
}
