// Package supervise is a container's monitor process: it creates the init stage,
// holds the standard streams, writes the log, serves the protocol of package
// monitor and keeps the exit status. It knows nothing of OCI or of drivers.
package supervise

import (
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/foreign"
	"github.com/davit-engine/davit/sdk/monitor/hook"
	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/restore"
)

// ControlFD is the descriptor of the socket to the runtime driver. The driver
// sends the [Config] as one message of package monitor and reads one
// monitor.Response when the container is created. A monitor may be started long
// before it is told: the socket's end without a message ends it.
const ControlFD = 3

// ComplaintsName is the file in a monitor's directory that has its standard
// error.
const ComplaintsName = "monitor.log"

// Config is what a monitor is told.
type Config struct {
	ID      string          `json:"id"`  // for people who read ps
	Dir     string          `json:"dir"` // of socket and exit file; also in which the stage's root is
	Streams monitor.Streams `json:"streams"`
	// Stage is the encoded configuration of the init stage (package sandbox), passed
	// on unread; none with Restore and Foreign. It comes behind the JSON.
	Stage     []byte `json:"-"`
	StageSize int    `json:"stageSize"`
	// Restore makes the init, and all that was below it, from a checkpoint instead.
	Restore *restore.Plan `json:"restore,omitempty"`
	// Foreign has another runtime make the container and its execs. Of what follows
	// only OOMFile and Trace are for it.
	Foreign *foreign.Plan `json:"foreign,omitempty"`
	// Birth is what the stage cannot give itself.
	Birth launch.Birth `json:"birth"`
	// CloneFlags are the CLONE_NEW* flags of the new process.
	CloneFlags uintptr `json:"cloneFlags"`
	// JoinPaths are namespace files to enter before the clone.
	JoinPaths []launch.Join `json:"joinPaths,omitempty"`
	// CgroupFiles (v1) or CgroupDir (v2) put the new process into its cgroup.
	CgroupFiles []string `json:"cgroupFiles,omitempty"`
	CgroupDir   string   `json:"cgroupDir,omitempty"`
	// OOMFile is a cgroup file with an "oom_kill N" line.
	OOMFile string `json:"oomFile,omitempty"`
	// Hooks are those that run in the monitor's namespaces; nil for none.
	Hooks *hook.Set `json:"hooks,omitempty"`
	// Trace has the monitor report when its steps were done.
	Trace bool `json:"trace,omitempty"`
	// ExecJoin are the namespaces (CLONE_NEW*) an exec enters.
	ExecJoin int `json:"execJoin"`
	// JoinPID says that execs enter the init's pid namespace.
	JoinPID bool `json:"joinPid,omitempty"`
	// Listener is the agent for a seccomp filter that notifies, of the init and of
	// execs.
	Listener *launch.Listener `json:"listener,omitempty"`
}

// Tail implements monitor.Tailed.
func (c *Config) Tail() (content *[]byte, size *int) { return &c.Stage, &c.StageSize }
