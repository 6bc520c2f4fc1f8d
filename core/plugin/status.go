package plugin

import "time"

// Kind is the layer a driver serves.
type Kind string

// The kinds of drivers.
const (
	Storage Kind = "storage"
	Network Kind = "network"
	Runtime Kind = "runtime"
	Volume  Kind = "volume"
)

// Status describes a driver plugin and its process.
type Status struct {
	Name      string    // manifest name, e.g. "storage-overlay"
	Kind      Kind      //
	Driver    string    // driver name, e.g. "overlay"
	Version   string    // of the plugin
	Path      string    // executable
	SHA256    string    // digest of the executable, hex
	Default   bool      // chosen where no driver is named
	State     State     //
	PID       int       // 0 when not running
	Restarts  int       // since the engine started
	Since     time.Time // of the present state
	LastError string    // why it last failed, empty if it never did
	Features  []string  //
}

// State is a plugin's state.
type State string

// The states of a plugin.
const (
	StateIdle     State = "idle" // on demand, and nobody has called it yet
	StateStarting State = "starting"
	StateReady    State = "ready"
	StateUpgrade  State = "upgrading" // another process takes the place of this one
	StateBackoff  State = "backoff"   // died or failed to start; will be tried again
	StateFailed   State = "failed"    // cannot work: wrong digest, protocol or permissions
	StateStopped  State = "stopped"
)
