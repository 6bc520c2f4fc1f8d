// Package monitor speaks with container monitors.
//
// A monitor (the program davit-monitor) is the parent of one container's init
// process. It holds the standard streams, writes the log, starts further
// processes and keeps the exit status, so that a container needs neither the
// engine nor its runtime driver to go on.
//
// # Protocol
//
// A monitor listens on a unix stream socket. A connection carries one request:
// four bytes of length (big endian) and that many bytes of JSON ([Request]),
// answered in the same way ([Response]). Behind the JSON of an "exec" is, as raw
// bytes, what its stage is told. After a successful "attach" the
// connection is the stream: from the monitor raw bytes for a terminal, or else
// Docker's frames (one byte stream number 1 or 2, three zero bytes, four bytes
// of length, big endian, payload); to the monitor raw bytes of standard input,
// whose end is the connection's half close.
//
// Only the standard library and x/sys may be imported here: the monitor pays for
// every import in each container's memory.
package monitor

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// maxMessage bounds a request or response; specs with a large environment and a
// seccomp program stay far below it.
const maxMessage = 8 << 20

// Operations of a request.
const (
	OpStatus     = "status"     // how the process is
	OpStart      = "start"      // execute the created process
	OpWait       = "wait"       // answer when the process has ended
	OpSignal     = "signal"     // send Signal to the process
	OpResize     = "resize"     // set the terminal to Width × Height
	OpCloseStdin = "closestdin" // end standard input
	OpAttach     = "attach"     // become a stream
	OpExec       = "exec"       // create another process from Spec and Process
	OpForget     = "forget"     // drop an ended exec's record
	OpDescribe   = "describe"   // what a checkpoint has to know
)

// Request asks a monitor for one operation on one process; the empty Exec is
// the container's init.
type Request struct {
	Op     string `json:"op"`
	Exec   string `json:"exec,omitempty"`
	Signal int    `json:"signal,omitempty"`
	Width  uint16 `json:"width,omitempty"`
	Height uint16 `json:"height,omitempty"`
	Stdin  bool   `json:"stdin,omitempty"`
	Stdout bool   `json:"stdout,omitempty"`
	Stderr bool   `json:"stderr,omitempty"`
	// Streams and Stage describe a new exec; Stage, an encoded Config of package
	// sandbox, is handed on unread. It comes behind the JSON, which has its size.
	Streams   *Streams `json:"streams,omitempty"`
	Stage     []byte   `json:"-"`
	StageSize int      `json:"stageSize,omitempty"`
	// Birth is what the process cannot give itself: a Birth of package launch.
	Birth json.RawMessage `json:"birth,omitempty"`
	// CgroupFiles are the files to write "0" to (v1) or the directory (v2) that
	// the new process joins.
	CgroupFiles []string `json:"cgroupFiles,omitempty"`
	CgroupDir   string   `json:"cgroupDir,omitempty"`
}

// Tail implements [Tailed].
func (r *Request) Tail() (content *[]byte, size *int) { return &r.Stage, &r.StageSize }

// Streams say what a process's standard streams are.
type Streams struct {
	Terminal  bool   `json:"terminal,omitempty"`
	Stdin     bool   `json:"stdin,omitempty"`
	StdinOnce bool   `json:"stdinOnce,omitempty"`
	Width     uint16 `json:"width,omitempty"`
	Height    uint16 `json:"height,omitempty"`
	Log       *Log   `json:"log,omitempty"`
	// Patience is for how many milliseconds an attached client that does not read may
	// hold the process up before it is cut off; 0: ten seconds.
	Patience int `json:"patience,omitempty"`
}

// Log says where output is written in Docker's json-file format.
type Log struct {
	Path    string `json:"path"`
	MaxSize int64  `json:"maxSize,omitempty"` // bytes; 0: never rotated
	MaxFile int    `json:"maxFile,omitempty"` // files kept, at least 1
	// Attributes, a JSON object of strings, is every entry's "attrs".
	Attributes json.RawMessage `json:"attributes,omitempty"`
	// Compressor is the program that makes .1.gz of .1, which is its argument; empty:
	// rotated files stay as they are.
	Compressor string `json:"compressor,omitempty"`
}

// Response answers a request.
type Response struct {
	Error *Failure `json:"error,omitempty"`
	State string   `json:"state,omitempty"` // "created", "running", "exited"
	PID   int      `json:"pid,omitempty"`
	Exit  *Exit    `json:"exit,omitempty"`
	Trace *Trace   `json:"trace,omitempty"` // of a creation, if one was wanted
	// Description answers OpDescribe.
	Description *Description `json:"description,omitempty"`
}

// Description is what a checkpoint has to know of a process's surroundings.
type Description struct {
	Terminal bool `json:"terminal,omitempty"`
	// Pipes are the names of those that are its standard streams ("pipe:[1234]"),
	// empty where it has none.
	Pipes [3]string `json:"pipes"`
	// Execs is how many execs of the container have not ended.
	Execs int `json:"execs,omitempty"`
}

// Exit is how a process ended. It is also the content of a monitor's exit file.
type Exit struct {
	Code      int       `json:"code"`
	At        time.Time `json:"at"`
	OOMKilled bool      `json:"oomKilled,omitempty"`
	Reason    string    `json:"reason,omitempty"` // why Code is not the process's own word
}

// States of a process.
const (
	StateCreated = "created"
	StateRunning = "running"
	StateExited  = "exited"
)

// Kinds of failures.
const (
	KindNotFound           = "not-found"              // no such process
	KindExists             = "already-exists"         // the exec's ID is in use
	KindPrecondition       = "failed-precondition"    // the process is in another state
	KindInvalid            = "invalid"                // the request makes no sense
	KindInternal           = "internal"               // anything else
	KindCommandNotFound    = "command-not-found"      // exit code 127
	KindCommandNotExecable = "command-not-executable" // exit code 126
)

// Failure is an error that crosses the socket.
type Failure struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

// Error is the message alone: the kind is for programs.
func (f *Failure) Error() string { return f.Message }

// Failf makes a failure.
func Failf(kind, format string, args ...any) *Failure {
	return &Failure{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// AsFailure turns any error into a failure of its own kind, or an internal one.
func AsFailure(err error) *Failure {
	if err == nil {
		return nil
	}
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return &Failure{Kind: KindInternal, Message: err.Error()}
}

// Tailed is a message with bytes behind its JSON, which says how many: what is
// large and only passed on need not be JSON.
type Tailed interface {
	Tail() (content *[]byte, size *int)
}

// WriteMessage sends v as one message. A [Tailed] one gets the size of its tail.
func WriteMessage(w io.Writer, v any) error {
	var tail []byte
	if t, ok := v.(Tailed); ok {
		content, size := t.Tail()
		tail, *size = *content, len(*content)
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	message := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)+len(tail)), uint32(len(body)))
	_, err = w.Write(append(append(message, body...), tail...))
	return err
}

// ReadMessage receives one message into v. It reads not one byte more.
func ReadMessage(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	body, err := readBody(r, int64(binary.BigEndian.Uint32(head[:])))
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		return err
	}
	if t, ok := v.(Tailed); ok {
		content, size := t.Tail()
		*content, err = readBody(r, int64(*size))
	}
	return err
}

func readBody(r io.Reader, size int64) ([]byte, error) {
	if size < 0 || size > maxMessage {
		return nil, fmt.Errorf("message of %d bytes is larger than %d", size, maxMessage)
	}
	if size == 0 {
		return nil, nil
	}
	// Memory is taken for what comes, not for what is announced.
	var body bytes.Buffer
	body.Grow(int(min(size, 64<<10)))
	if _, err := io.CopyN(&body, r, size); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return body.Bytes(), nil
}
