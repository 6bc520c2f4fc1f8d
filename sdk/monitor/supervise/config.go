// Package supervise is a container's monitor process: it creates the init stage,
// holds the standard streams, writes the log, serves the protocol of package
// monitor and keeps the exit status. It knows nothing of OCI or of drivers.
package supervise

import (
	"encoding/json"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/launch"
)

// Descriptors that the runtime driver hands to a monitor.
const (
	ConfigFD = 3 // Config, as JSON in a file
	ReadyFD  = 4 // pipe on which the monitor writes one monitor.Response when the container is created
)

// Config is what a monitor is told.
type Config struct {
	Dir     string          `json:"dir"` // of socket and exit file; also in which the stage's root is
	Streams monitor.Streams `json:"streams"`
	// Stage is the configuration of the init stage (package sandbox), passed on
	// unread.
	Stage json.RawMessage `json:"stage"`
	// CloneFlags are the CLONE_NEW* flags of the new process.
	CloneFlags uintptr `json:"cloneFlags"`
	// JoinPaths are namespace files to enter before the clone.
	JoinPaths []launch.Join `json:"joinPaths,omitempty"`
	// CgroupFiles (v1) or CgroupDir (v2) put the new process into its cgroup.
	CgroupFiles []string `json:"cgroupFiles,omitempty"`
	CgroupDir   string   `json:"cgroupDir,omitempty"`
	// OOMFile is a cgroup file with an "oom_kill N" line.
	OOMFile string `json:"oomFile,omitempty"`
	// ExecJoin are the namespaces (CLONE_NEW*) an exec enters.
	ExecJoin int `json:"execJoin"`
	// JoinPID says that execs enter the init's pid namespace.
	JoinPID bool `json:"joinPid,omitempty"`
}
