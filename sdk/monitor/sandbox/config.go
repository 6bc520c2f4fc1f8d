// Package sandbox is the stage between clone and execve: it runs inside a
// container's new namespaces, sets the container up and becomes the user's
// program. It also joins running containers for execs.
//
// The runtime driver has translated the OCI spec into [Config] before: nothing
// here parses options or knows defaults. Kernel steps are lists of named steps
// (see setup.go and exec.go), each of which says what must hold before it.
package sandbox

import (
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// Descriptors that the monitor hands to the stage.
const (
	ConfigFD = 3 // a file with the encoded Config
	SyncFD   = 4 // socket to the monitor: ready, go, failure
	PidFD    = 5 // exec only: pidfd of the container's init
	StartFD  = 6 // listening socket on which the order to execute may come later
	ExtraFD  = 7 // first of the descriptors that the program inherits
)

// Config is everything the stage does.
type Config struct {
	// Container is set for a container's init, nil for an exec.
	Container *Container `json:"container,omitempty"`
	Process   Process    `json:"process"`
	Seccomp   *Seccomp   `json:"seccomp,omitempty"`
	// Join are namespaces (CLONE_NEW*) of the container's init to enter: exec only.
	Join int `json:"join,omitempty"`
	// FindFirst finds the program before the stage says that it is ready, so that a
	// missing one is an error of creation, not of start.
	FindFirst bool `json:"findFirst,omitempty"`
	// HugePages allows transparent huge pages again, which the monitor does without.
	HugePages bool `json:"hugePages,omitempty"`
	// Trace has the stage report when its steps were done, before it says that it is
	// ready.
	Trace bool `json:"trace,omitempty"`
	// Extra is the number of descriptors from ExtraFD on that become the program's
	// from 3 on.
	Extra int `json:"extra,omitempty"`
}

// Container is the surroundings of a container's processes.
type Container struct {
	// Unshare are the CLONE_NEW* namespaces that the stage makes itself. The others
	// exist when it starts.
	Unshare    int    `json:"unshare,omitempty"`
	Hostname   string `json:"hostname,omitempty"`
	Domainname string `json:"domainname,omitempty"`
	// Rootfs is a host directory over which the root filesystem is mounted; it is
	// only seen inside the new mount namespace.
	Rootfs string `json:"rootfs"`
	// Propagation of the host's mounts into the container's namespace (MS_SLAVE,
	// MS_SHARED, MS_PRIVATE, plus MS_REC); RootPropagation is that of the
	// container's root when all is mounted, 0 for none in particular.
	Propagation     uintptr `json:"propagation"`
	RootPropagation uintptr `json:"rootPropagation,omitempty"`
	Root            []Mount `json:"root"`
	// NoPivot moves the root filesystem over the host's root, which stays below it,
	// where pivot_root cannot work: the host's root is a ramdisk.
	NoPivot bool `json:"noPivot,omitempty"`
	// Prepared is the number of mounts that the parent makes (Preparation); with
	// PreparedRoot the first of them is the root filesystem.
	Prepared     int      `json:"prepared,omitempty"`
	PreparedRoot bool     `json:"preparedRoot,omitempty"`
	ReadOnly     bool     `json:"readOnly,omitempty"`
	Mounts       []Mount  `json:"mounts"`
	Devices      []Device `json:"devices"`
	// KeepDev leaves /dev as it is: it is the host's own.
	KeepDev    bool              `json:"keepDev,omitempty"`
	Masked     []string          `json:"masked,omitempty"`
	ReadOnlyIn []string          `json:"readOnlyIn,omitempty"`
	Sysctls    map[string]string `json:"sysctls,omitempty"`
	// Hooks are those that run inside, and the parent is asked for its own; nil for
	// none of both.
	Hooks *hook.Set `json:"hooks,omitempty"`
	// NetUp brings the loopback device of a new network namespace up.
	NetUp bool `json:"netUp,omitempty"`
}

// Mount is one mount with its options already split.
type Mount struct {
	Type   string `json:"type"` // "bind" or a filesystem type
	Source string `json:"source,omitempty"`
	Target string `json:"target,omitempty"` // inside the container
	// Subdir is what of a bind's source is mounted: a path below it that never leads
	// out, whoever changes what lies there.
	Subdir string `json:"subdir,omitempty"`
	// Set and Clear are MOUNT_ATTR_* flags; Recursive applies them below binds, too.
	Set       uint64 `json:"set,omitempty"`
	Clear     uint64 `json:"clear,omitempty"`
	Recursive bool   `json:"recursive,omitempty"` // rbind
	// SetAll and ClearAll are MOUNT_ATTR_* flags for the mount and all below it.
	SetAll   uint64 `json:"setAll,omitempty"`
	ClearAll uint64 `json:"clearAll,omitempty"`
	// Remount changes what is mounted at Target: its attributes and, unless Type is
	// "bind", its filesystem's options in Data. What is not named stays.
	Remount bool `json:"remount,omitempty"`
	// Propagation are MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE, plus MS_REC,
	// applied in this order.
	Propagation []uintptr `json:"propagation,omitempty"`
	Data        []string  `json:"data,omitempty"` // filesystem options, "key" or "key=value"
	// Prepared says that the parent makes the mount; here is only its place.
	Prepared bool `json:"prepared,omitempty"`
	// IDMap maps the owners of its files; for the layers of an overlay, theirs.
	IDMap *IDMap `json:"idMap,omitempty"`
	// CopyUp fills a tmpfs with what the image has at Target.
	CopyUp bool `json:"copyUp,omitempty"`
	// Link makes a symbolic link to Source at Target instead of a mount.
	Link bool `json:"link,omitempty"`
}

// Device is a device node.
type Device struct {
	Path  string `json:"path"`
	Mode  uint32 `json:"mode"` // type and permissions as in mknod(2)
	Major uint32 `json:"major,omitempty"`
	Minor uint32 `json:"minor,omitempty"`
	UID   int    `json:"uid,omitempty"`
	GID   int    `json:"gid,omitempty"`
	// Prepared says that the parent makes the node.
	Prepared bool `json:"prepared,omitempty"`
}

// Process is the program and its rights.
type Process struct {
	Args        []string `json:"args"`
	Env         []string `json:"env"`
	Cwd         string   `json:"cwd"`
	Terminal    bool     `json:"terminal,omitempty"`
	Width       uint16   `json:"width,omitempty"`
	Height      uint16   `json:"height,omitempty"`
	UID         uint32   `json:"uid,omitempty"`
	GID         uint32   `json:"gid,omitempty"`
	Groups      []uint32 `json:"groups,omitempty"`
	Umask       *uint32  `json:"umask,omitempty"`
	Caps        *Caps    `json:"caps,omitempty"` // nil: keep all
	NoNewPrivs  bool     `json:"noNewPrivs,omitempty"`
	Rlimits     []Rlimit `json:"rlimits,omitempty"`
	OOMScoreAdj *int     `json:"oomScoreAdj,omitempty"`

	Scheduler    *Scheduler    `json:"scheduler,omitempty"`
	IOPriority   *int          `json:"ioPriority,omitempty"` // as in ioprio_set(2)
	Personality  *uint32       `json:"personality,omitempty"`
	MemoryPolicy *MemoryPolicy `json:"memoryPolicy,omitempty"`
	// Affinity are the processors the program may run on; empty leaves it to the
	// cgroup.
	Affinity []int `json:"affinity,omitempty"`
	// Keyring names a session keyring to join or make; empty keeps the inherited one.
	Keyring string `json:"keyring,omitempty"`
	// AppArmor is the profile and SELinux the label that execve changes to; empty
	// keeps the inherited one.
	AppArmor string `json:"appArmor,omitempty"`
	SELinux  string `json:"selinux,omitempty"`
}

// Caps are capability sets as bit masks.
type Caps struct {
	Bounding    uint64 `json:"bounding"`
	Effective   uint64 `json:"effective"`
	Permitted   uint64 `json:"permitted"`
	Inheritable uint64 `json:"inheritable"`
	Ambient     uint64 `json:"ambient"`
}

// Scheduler is struct sched_attr of sched_setattr(2); times are in nanoseconds.
type Scheduler struct {
	Policy   uint32 `json:"policy"`
	Flags    uint64 `json:"flags,omitempty"`
	Nice     int32  `json:"nice,omitempty"`
	Priority uint32 `json:"priority,omitempty"`
	Runtime  uint64 `json:"runtime,omitempty"`
	Deadline uint64 `json:"deadline,omitempty"`
	Period   uint64 `json:"period,omitempty"`
}

// MemoryPolicy is what set_mempolicy(2) takes: Mode has the flags in it, Nodes is
// a bit mask.
type MemoryPolicy struct {
	Mode  int      `json:"mode"`
	Nodes []uint64 `json:"nodes,omitempty"`
}

// Rlimit is one resource limit.
type Rlimit struct {
	Resource int    `json:"resource"`
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
}

// Namespaces are the CLONE_NEW* flags of all namespaces an exec may join.
const Namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
