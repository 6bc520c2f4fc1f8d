// Package criu speaks CRIU's RPC protocol (rpc.proto) with a worker process,
// "criu swrk", which dumps the processes of a container into image files or makes
// them anew from such files.
//
// Monitors restore with it: only the standard library and x/sys may be imported
// here, see package monitor. That, and the need to start the worker on a chosen
// thread and to receive descriptors from it, is why it is not go-criu.
package criu

// kind is criu_req_type.
type kind uint64

const (
	dump    kind = 1
	restore kind = 2
	check   kind = 3
	preDump kind = 4
	notify  kind = 6
	version kind = 10
)

// Cgroup modes (criu_cg_mode): what of cgroups is dumped and restored.
const (
	CgroupIgnore = "ignore" // nothing: restored processes are where the worker is
	CgroupNone   = "none"   // membership; the groups have to be there
	CgroupProps  = "props"  // also groups and their settings, where the groups are there
	CgroupSoft   = "soft"   // also settings of groups that restoring made
	CgroupFull   = "full"   // groups and settings of all
	CgroupStrict = "strict" // groups must not be there before
)

var cgroupModes = map[string]uint64{CgroupIgnore: 0, CgroupNone: 1, CgroupProps: 2, CgroupSoft: 3, CgroupFull: 4, CgroupStrict: 5}

// KnownCgroupMode says whether CRIU has a cgroup mode.
func KnownCgroupMode(mode string) bool {
	_, known := cgroupModes[mode]
	return known
}

// Network locks (criu_network_lock_method): how packets are kept away from TCP
// connections while nobody answers them.
const (
	LockIPTables = 1
	LockNFTables = 2
	LockSkip     = 3
)

// Options are criu_opts. They are data: files are named by descriptors of the
// process that sends them.
type Options struct {
	// Log is the name of the log in the work directory.
	Log string `json:"log,omitempty"`
	// PID is the root of the tree to dump.
	PID int `json:"pid,omitempty"`
	// Root is the directory of the restored root filesystem, a mount point.
	Root string `json:"root,omitempty"`
	// Parent is the directory of the images of an earlier dump, relative to the new
	// one's.
	Parent string `json:"parent,omitempty"`

	LeaveRunning   bool `json:"leaveRunning,omitempty"`
	ExtUnixSockets bool `json:"extUnixSockets,omitempty"` // unix connections that leave the tree
	TCPEstablished bool `json:"tcpEstablished,omitempty"`
	ShellJob       bool `json:"shellJob,omitempty"` // session or terminal are not the tree's own
	FileLocks      bool `json:"fileLocks,omitempty"`
	LinkRemap      bool `json:"linkRemap,omitempty"` // files without a name get one meanwhile
	TrackMemory    bool `json:"trackMemory,omitempty"`
	AutoDedup      bool `json:"autoDedup,omitempty"`
	EvasiveDevices bool `json:"evasiveDevices,omitempty"`
	// OrphanPTSMaster asks for the masters of terminals whose slaves alone are the
	// tree's: they come with notification OrphanPTSMaster.
	OrphanPTSMaster bool `json:"orphanPtsMaster,omitempty"`
	// Sibling makes the restored root a child of the worker's parent.
	Sibling bool `json:"sibling,omitempty"`

	CgroupMode  string       `json:"cgroupMode,omitempty"`
	CgroupRoots []CgroupRoot `json:"cgroupRoots,omitempty"`
	// FreezeCgroup is the directory of a freezer that holds the tree.
	FreezeCgroup string `json:"freezeCgroup,omitempty"`
	// External are resources from outside of the tree, in the words of criu(8)'s
	// --external.
	External []string `json:"external,omitempty"`
	// Inherit are descriptors of the worker that take an external resource's place.
	Inherit []Inherit `json:"inherit,omitempty"`
	// EmptyNamespaces are CLONE_NEW* of namespaces whose content is not kept.
	EmptyNamespaces int `json:"emptyNamespaces,omitempty"`
	NetworkLock     int `json:"networkLock,omitempty"`
}

// CgroupRoot is where the root of the dumped cgroups is restored.
type CgroupRoot struct {
	Controllers string `json:"controllers,omitempty"` // empty: all
	Path        string `json:"path"`
}

// Inherit gives an external resource a descriptor.
type Inherit struct {
	Key string `json:"key"`
	FD  int    `json:"fd"` // of the worker
}

// logLevel is CRIU's "debug": what an error means can only be seen in what was
// done before.
const logLevel = 4

// encode makes criu_opts; images and work are descriptors of this process.
func (o Options) encode(images, work int) message {
	var m message
	m.number(1, uint64(images))
	if o.PID > 0 {
		m.number(2, uint64(o.PID))
	}
	m.flag(3, o.LeaveRunning)
	m.flag(4, o.ExtUnixSockets)
	m.flag(5, o.TCPEstablished)
	m.flag(6, o.EvasiveDevices)
	m.flag(7, o.ShellJob)
	m.flag(8, o.FileLocks)
	m.number(9, logLevel)
	m.text(10, o.Log)
	m.number(12, 1) // notify_scripts
	m.text(13, o.Root)
	m.text(14, o.Parent)
	m.flag(15, o.TrackMemory)
	m.flag(16, o.AutoDedup)
	if work >= 0 {
		m.number(17, uint64(work))
	}
	m.flag(18, o.LinkRemap)
	for _, root := range o.CgroupRoots {
		var r message
		r.text(1, root.Controllers)
		r.text(2, root.Path)
		m.nested(25, r)
	}
	m.flag(26, o.Sibling)
	for _, inherit := range o.Inherit {
		var i message
		i.text(1, inherit.Key)
		i.number(2, uint64(inherit.FD))
		m.nested(27, i)
	}
	if o.CgroupMode != "" {
		m.number(24, 1)
		m.number(34, cgroupModes[o.CgroupMode])
	}
	for _, external := range o.External {
		m.text(37, external)
	}
	if o.EmptyNamespaces != 0 {
		m.number(38, uint64(o.EmptyNamespaces))
	}
	m.text(44, o.FreezeCgroup)
	m.flag(50, o.OrphanPTSMaster)
	if o.NetworkLock != 0 {
		m.number(64, uint64(o.NetworkLock))
	}
	return m
}
