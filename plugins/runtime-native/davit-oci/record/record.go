// Package record keeps what the command-line runtime knows of its containers
// between two commands: one directory for each container below the root, with a
// lock, a record written whole or not at all, and the socket on which a created
// container waits for its start. It starts and stops nothing.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/placement"
	"github.com/davit-engine/davit/sdk/monitor/hook"
	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// The errors have runc's texts: tools look for them.
var (
	ErrExists   = errors.New("container with given ID already exists")
	ErrNotExist = errors.New("container does not exist")
	ErrID       = errors.New("invalid container ID format")
)

// Names in a container's directory.
const (
	stateName  = "state.json"
	intentName = "intent"
	startName  = "start.sock"
)

// Record is what is known of one container.
type Record struct {
	ID          string            `json:"id"`
	OCIVersion  string            `json:"ociVersion"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Created     time.Time         `json:"created"`
	UID         int               `json:"uid"` // who created it
	PID         int               `json:"pid"`
	StartTime   string            `json:"startTime"` // of PID, in clock ticks: tells a reused pid
	placement.Placement
	// Process, Seccomp, Listener, Join and OwnPID are what an exec takes from its container.
	Process *specs.Process   `json:"process"`
	Seccomp *sandbox.Seccomp `json:"seccomp,omitempty"`
	// Listener is the agent of a filter that notifies.
	Listener *launch.Listener `json:"listener,omitempty"`
	Join     int              `json:"join"` // CLONE_NEW* of the namespaces to enter
	OwnPID   bool             `json:"ownPid,omitempty"`
	Birth    launch.Birth     `json:"birth"` // of execs
	// Hooks that come after creation: poststart, poststop.
	Hooks *hook.Set `json:"hooks,omitempty"`
	// Personality and MemoryPolicy are an exec's, too.
	Personality  *uint32               `json:"personality,omitempty"`
	MemoryPolicy *sandbox.MemoryPolicy `json:"memoryPolicy,omitempty"`
	Keyring      string                `json:"keyring,omitempty"`
	// Pipes, Joined and User are what a checkpoint has to know: the names of the pipes
	// that the standard streams were made with, CLONE_NEW* of namespaces that were there
	// before, and whether there is a user namespace.
	Pipes  [3]string `json:"pipes"`
	Joined int       `json:"joined,omitempty"`
	User   bool      `json:"user,omitempty"`
}

// validID is runc's rule. What is too long for a file's name is refused by mkdir.
func validID(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '_' && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return id != "" && id != "." && id != ".."
}

// Root is the directory that holds all containers, private to root.
type Root string

// Dir is an open and locked container directory.
type Dir struct {
	path string
	file *os.File
}

func (r Root) path(id string) (string, error) {
	if !validID(id) {
		return "", ErrID
	}
	return filepath.Join(string(r), id), nil
}

// Create makes the directory of a new container and locks it. What a creation
// that was killed left is handed to undo, with the cgroup it intended, and then
// removed.
func (r Root) Create(id string, undo func(placement.Placement) error) (*Dir, error) {
	path, err := r.path(id)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(string(r), 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	for {
		err := os.Mkdir(path, 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("making the container's state directory: %w", err)
		}
		if err := r.clear(path, undo); err != nil {
			return nil, err
		}
	}
	return lock(path, unix.LOCK_EX)
}

// Intend leaves word of the cgroup that will be made, for whoever undoes the
// creation after a crash.
func (d *Dir) Intend(p placement.Placement) error {
	text, err := p.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.path, intentName), text, 0o600)
}

// clear removes a directory without a record whose creator is dead; any other is
// ErrExists.
func (r Root) clear(path string, undo func(placement.Placement) error) error {
	d, err := lock(path, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, ErrNotExist) {
		return nil // just removed
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := os.Stat(filepath.Join(path, stateName)); err == nil {
		return ErrExists
	}
	intent, err := os.ReadFile(filepath.Join(path, intentName))
	if err == nil && len(intent) > 0 {
		p, err := placement.Decode(intent)
		if err == nil {
			err = undo(p)
		}
		if err != nil {
			return fmt.Errorf("undoing a creation that was cut off: %w", err)
		}
	}
	return os.RemoveAll(path)
}

// Open locks an existing container's directory and reads its record. A directory
// without a record is a creation that was cut off: ErrNotExist.
func (r Root) Open(id string) (*Dir, *Record, error) {
	path, err := r.path(id)
	if err != nil {
		return nil, nil, err
	}
	d, err := lock(path, unix.LOCK_EX)
	if err != nil {
		return nil, nil, err
	}
	record, err := d.Load()
	if err != nil {
		d.Close()
		return nil, nil, err
	}
	return d, record, nil
}

// Discard removes what is left of a creation that was cut off.
func (r Root) Discard(id string, undo func(placement.Placement) error) error {
	path, err := r.path(id)
	if err != nil {
		return err
	}
	return r.clear(path, undo)
}

// Peek reads a record without waiting for whoever works on the container.
func (r Root) Peek(id string) (*Record, error) {
	path, err := r.path(id)
	if err != nil {
		return nil, err
	}
	return (&Dir{path: path}).Load()
}

// StartSocket is the path of the socket on which a container awaits its start.
func (r Root) StartSocket(id string) string { return filepath.Join(string(r), id, startName) }

// List reads all records, in the order of their IDs.
func (r Root) List() ([]*Record, error) {
	entries, err := os.ReadDir(string(r))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []*Record
	for _, entry := range entries {
		if !entry.IsDir() || !validID(entry.Name()) {
			continue
		}
		record, err := r.Peek(entry.Name())
		if errors.Is(err, ErrNotExist) {
			continue // being created, or just removed
		}
		if err != nil {
			return nil, err
		}
		list = append(list, record)
	}
	return list, nil
}

// lock waits for the directory's lock; ErrNotExist if the directory went
// meanwhile.
func lock(path string, how int) (*Dir, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	var locked, now unix.Stat_t
	if unix.Fstat(int(f.Fd()), &locked) != nil || unix.Stat(path, &now) != nil || locked.Ino != now.Ino {
		_ = f.Close()
		return nil, ErrNotExist
	}
	return &Dir{path, f}, nil
}

// Close gives the lock back.
func (d *Dir) Close() { _ = d.file.Close() }

// Path is the directory.
func (d *Dir) Path() string { return d.path }

// Load reads the record.
func (d *Dir) Load() (*Record, error) {
	body, err := os.ReadFile(filepath.Join(d.path, stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	record := &Record{}
	if err := json.Unmarshal(body, record); err != nil {
		return nil, fmt.Errorf("record of container %s: %w", filepath.Base(d.path), err)
	}
	return record, nil
}

// Encode answers what [Dir.Save] takes. The two are apart because this takes the
// longer, and can be done while something else is waited for.
func (r *Record) Encode() ([]byte, error) { return json.Marshal(r) }

// Save writes an encoded record, whole or not at all.
func (d *Dir) Save(record []byte) error {
	return WriteFile(filepath.Join(d.path, stateName), record, 0o600)
}

// Remove removes the directory; the lock ends with Close.
func (d *Dir) Remove() error {
	// The record goes first: what a crash leaves then counts as cut off.
	if err := os.Remove(filepath.Join(d.path, stateName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(d.path)
}

// WriteFile replaces a file in one step.
func WriteFile(path string, body []byte, mode fs.FileMode) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(temporary, body, mode); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}
