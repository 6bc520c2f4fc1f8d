package translate

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// specOptions are the options of the runtime-spec's table of mount options.
const specOptions = `async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec noiversion
	nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime remount rexec rnoatime
	rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime
	rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap`

func TestEveryOptionOfTheSpecIsKnown(t *testing.T) {
	known := Options()
	for _, option := range strings.Fields(specOptions) {
		if !slices.Contains(known, option) {
			t.Errorf("option %s is not known", option)
		}
	}
}

func TestAttributesFollowTheOrderOfOptions(t *testing.T) {
	for _, test := range []struct {
		options    string
		set, clear uint64
	}{
		{"ro", unix.MOUNT_ATTR_RDONLY, 0},
		{"ro,rw", 0, unix.MOUNT_ATTR_RDONLY},
		{"rw,ro", unix.MOUNT_ATTR_RDONLY, 0},
		{"noatime", unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME},
		{"noatime,strictatime", unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},
		{"strictatime,relatime", 0, unix.MOUNT_ATTR__ATIME},
		{"nosuid,noexec,suid", unix.MOUNT_ATTR_NOEXEC, unix.MOUNT_ATTR_NOSUID},
	} {
		m, err := convertMount("tmpfs", "tmpfs", "/t", strings.Split(test.options, ","))
		if err != nil || m.Set != test.set || m.Clear != test.clear {
			t.Errorf("%s: set %#x, clear %#x, %v", test.options, m.Set, m.Clear, err)
		}
		recursive := "r" + strings.ReplaceAll(test.options, ",", ",r")
		m, err = convertMount("bind", "/", "/t", append(strings.Split(recursive, ","), "rbind"))
		if err != nil || m.SetAll != test.set || m.ClearAll != test.clear {
			t.Errorf("%s: set %#x, clear %#x, %v", recursive, m.SetAll, m.ClearAll, err)
		}
	}
}

func TestADevicesFilesystemIsReadOnlyItself(t *testing.T) {
	m, err := convertMount("ext4", "/dev/sda", "/t", []string{"ro", "data=ordered"})
	if err != nil || !slices.Equal(m.Data, []string{"ro", "data=ordered"}) {
		t.Errorf("got %q, %v", m.Data, err)
	}
}

// minimal is the smallest spec that translates.
func minimal() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Args: []string{"sh"}, Cwd: "/"},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}}},
	}
}

func TestRefusals(t *testing.T) {
	number := func(n int) *int { return &n }
	for want, change := range map[string]func(*specs.Spec){
		`ociVersion "2.0.0"`:       func(s *specs.Spec) { s.Version = "2.0.0" },
		"process.args":             func(s *specs.Spec) { s.Process.Args = nil },
		`process.cwd "here"`:       func(s *specs.Spec) { s.Process.Cwd = "here" },
		"process.oomScoreAdj 1001": func(s *specs.Spec) { s.Process.OOMScoreAdj = number(1001) },
		"RLIMIT_CORE is there twice": func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_CORE"}}
		},
		`"RLIMIT_LUCK" is unknown`:             func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_LUCK"}} },
		"soft limit of RLIMIT_CORE":            func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}} },
		`process.scheduler.policy "SCHED_ISO"`: func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedISO} },
		"process.scheduler.nice 20":            func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} },
		"process.scheduler.priority can only":  func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Priority: 1} },
		"runtime/deadline/period":              func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Period: 1} },
		`process.scheduler.flags "SCHED_X"`: func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Flags: []specs.LinuxSchedulerFlag{"SCHED_X"}}
		},
		"process.ioPriority.priority 8": func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		},
		`process.ioPriority.class "BEST"`:    func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "BEST"} },
		"hostname cannot be set without":     func(s *specs.Spec) { s.Hostname = "h" },
		"domainname cannot be set without":   func(s *specs.Spec) { s.Domainname = "d" },
		"a mount namespace of its own":       func(s *specs.Spec) { s.Linux.Namespaces = nil },
		`linux.personality.domain "BSD"`:     func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} },
		`linux.memoryPolicy.mode "MPOL_FAR"`: func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_FAR"} },
		`"1-x" is not a list`: func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "1-x"}
		},
		`sysctl "kernel.shmmax" is not allowed`: func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.shmmax": "1"} },
		`sysctl "net/../vm/x" is not a key`:     func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../vm/x": "1"} },
		`masked or read-only path "p"`:          func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"p"} },
		"has no destination":                    func(s *specs.Spec) { s.Mounts = []specs.Mount{{Type: "tmpfs"}} },
		"mount of /d has no type":               func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/d"}} },
		`bind source "s" is not an absolute`: func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/d", Source: "s", Options: []string{"bind"}}}
		},
		"tmpcopyup of /d is for tmpfs only": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/d", Type: "proc", Options: []string{"tmpcopyup"}}}
		},
		`device path "d" is not absolute`: func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "d", Type: "c"}} },
		`device /d has unknown type "x"`:  func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/d", Type: "x"}} },
		"impossible numbers -1:0":         func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/d", Type: "c", Major: -1}} },
	} {
		spec := minimal()
		change(spec)
		_, err := Spec(spec, nil, "/rootfs", nil)
		if err == nil || !strings.Contains(err.Error(), want) || !errdefs.IsInvalidArgument(err) {
			t.Errorf("want an invalid argument with %q, got %v", want, err)
		}
	}
}

func TestScheduler(t *testing.T) {
	got, err := scheduler(&specs.Scheduler{Policy: specs.SchedDeadline, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork, specs.SchedFlagDLOverrun}, Runtime: 1, Deadline: 2, Period: 3})
	want := &sandbox.Scheduler{Policy: 6, Flags: 0x05, Runtime: 1, Deadline: 2, Period: 3}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := scheduler(&specs.Scheduler{Policy: specs.SchedRR, Priority: 99}); err != nil || got.Priority != 99 || got.Policy != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestMemoryPolicyNodes(t *testing.T) {
	got, err := memoryPolicy(&specs.LinuxMemoryPolicy{Mode: specs.MpolInterleave, Nodes: "0-1,3,65", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}})
	want := &sandbox.MemoryPolicy{Mode: 3 | 1<<15, Nodes: []uint64{0b1011, 0b10}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestSysctlPath(t *testing.T) {
	for key, want := range map[string]string{
		"net.ipv4.ip_forward": "net/ipv4/ip_forward", "net/ipv4/ip_forward": "net/ipv4/ip_forward",
		"net.ipv4.conf.eth0/100.mtu": "net/ipv4/conf/eth0.100/mtu", "net/ipv4/conf/eth0.100/mtu": "net/ipv4/conf/eth0.100/mtu",
	} {
		if got := sysctlPath(key); got != want {
			t.Errorf("%s became %s, want %s", key, got, want)
		}
	}
}

func TestUnknownCapabilities(t *testing.T) {
	p := &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_X"}, Ambient: []string{"CAP_X", "CAP_Y"}}}
	if got := UnknownCapabilities(p); !slices.Equal(got, []string{"CAP_X", "CAP_Y"}) {
		t.Errorf("got %q", got)
	}
}

// FuzzSpec feeds any JSON that is a spec: an error or a result, never a panic,
// and nothing in the result that the stage could not read.
func FuzzSpec(f *testing.F) {
	full := minimal()
	full.Hostname = "h"
	full.Linux.Namespaces = append(full.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UTSNamespace}, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/n"})
	full.Mounts = []specs.Mount{{Destination: "/d", Type: "tmpfs", Options: []string{"ro", "size=1", "rslave"}}, {Destination: "e", Source: "/", Options: []string{"rbind", "rro"}}}
	full.Linux.Sysctl = map[string]string{"net.a/b.c": "1"}
	full.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c", Major: 1, Minor: 2}}
	full.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true"}}}
	full.Linux.Namespaces = append(full.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace}, specs.LinuxNamespace{Type: specs.TimeNamespace})
	full.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 1000, Size: 10}}
	full.Linux.GIDMappings = full.Linux.UIDMappings
	full.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}}
	full.Mounts = append(full.Mounts, specs.Mount{Destination: "/i", Source: "/", Options: []string{"bind", "idmap"}})
	full.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0-3"}
	full.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 1}
	full.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-3,5", Final: "1"}
	for _, spec := range []*specs.Spec{minimal(), full, {}} {
		body, err := json.Marshal(spec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"process":{"args":["a"],"cwd":"/","consoleSize":{"height":99999999,"width":1}},"linux":{"namespaces":[{"type":"mount"}],"devices":[{"path":"/","type":"c"}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var spec specs.Spec
		if json.Unmarshal(body, &spec) != nil {
			t.Skip()
		}
		// Cgroup mounts need the container's group, which a unit test does not have.
		spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" || m.Type == "cgroup2" })
		if _, err := Hooks(&spec, "id", "/bundle"); err != nil {
			return
		}
		result, err := Spec(&spec, nil, "/rootfs", nil)
		if err != nil {
			return
		}
		if spec.Process != nil {
			if _, _, err := CPUAffinity(spec.Process.ExecCPUAffinity); err != nil {
				return
			}
		}
		if _, err := json.Marshal(result.Birth); err != nil {
			t.Fatal(err)
		}
		config, err := json.Marshal(result.Stage)
		if err != nil {
			t.Fatal(err)
		}
		var read sandbox.Config
		if err := json.Unmarshal(config, &read); err != nil {
			t.Fatal(err)
		}
	})
}
