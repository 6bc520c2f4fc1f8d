package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/plugins/runtime-native/placement"
	"github.com/davit-engine/davit/plugins/runtime-native/proc"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Names in a container's directory, besides the monitor's own.
const (
	recordName = "container.json"
	rootfsName = "rootfs"
	pausedName = "paused"
)

// record is what the driver itself has to remember of a container.
type record struct {
	PID          int    `json:"pid"`
	Monitor      int    `json:"monitor"`
	MonitorStart string `json:"monitorStart"` // start time in clock ticks: tells a reused pid
	placement.Placement
	Joined int  `json:"joined,omitempty"` // CLONE_NEW* of namespaces that were there before
	User   bool `json:"user,omitempty"`   // it has a user namespace
}

var validID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

func checkID(id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("container ID %q has characters other than a-z, 0-9, '_', '.' and '-': %w", id, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (d *Driver) dir(id string) string { return filepath.Join(d.run, id) }

func (d *Driver) socket(id string) string { return filepath.Join(d.run, id, monitor.SocketName) }

// load reads a container's record.
func (d *Driver) load(id string) (record, error) {
	var r record
	if err := checkID(id); err != nil {
		return r, err
	}
	body, err := os.ReadFile(filepath.Join(d.dir(id), recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("container %s is not known to its runtime: %w", id, errdefs.ErrNotFound)
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("record of container %s: %w", id, err)
	}
	return r, nil
}

func (d *Driver) save(id string, r record) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(d.dir(id), recordName)
	if err := os.WriteFile(path+".new", body, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// exit reads the status a monitor left; nil if there is none.
func (d *Driver) exit(id, execID string) (*runtime.Exit, error) {
	name := monitor.ExitName
	if execID != "" {
		name = monitor.ExecExitName(execID)
	}
	body, err := os.ReadFile(filepath.Join(d.dir(id), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var exit monitor.Exit
	if err := json.Unmarshal(body, &exit); err != nil {
		return nil, fmt.Errorf("exit status of %s: %w", id, err)
	}
	return convertExit(&exit), nil
}

func convertExit(e *monitor.Exit) *runtime.Exit {
	if e == nil {
		return nil
	}
	return &runtime.Exit{Code: e.Code, At: e.At, OOMKilled: e.OOMKilled, Reason: e.Reason}
}

// monitorAlive says whether the recorded monitor still runs. One that only waits
// to be collected does not.
func (r record) monitorAlive() bool {
	stat, err := proc.ReadStat(r.Monitor)
	return err == nil && stat.Start == r.MonitorStart && stat.State != 'Z' && stat.State != 'X'
}
