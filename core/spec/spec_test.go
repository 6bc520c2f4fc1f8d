package spec

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:web:/var/www:/bin/sh\nnohome:x:40:41:::/bin/sh\n"
	group  = "root:x:0:\nwwwdata:x:34:\nlogs:x:50:www,other\naudio:x:63:www\nvideo:x:44:\n"
)

// input is a plain container, with what a test changes.
func input(change func(*Input)) Input {
	in := Input{
		ID: "abc", Hostname: "web", Config: &container.Config{Cmd: []string{"sh"}}, HostConfig: &container.HostConfig{ShmSize: 64 << 20},
		Passwd: []byte(passwd), Group: []byte(group), CgroupPath: "/davit/abc", Netns: "/run/davit/netns/abc",
	}
	if change != nil {
		change(&in)
	}
	return in
}

func build(t *testing.T, change func(*Input)) *specs.Spec {
	t.Helper()
	s, err := Build(input(change))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refused fails unless err is the client's fault and begins with the text: what
// Docker says.
func refused(t *testing.T, err error, text string) {
	t.Helper()
	if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), text) {
		t.Errorf("error is %v, want %q", err, text)
	}
}

func TestAPlainContainerHasDockersDefaults(t *testing.T) {
	s := build(t, func(in *Input) {
		in.Domainname = "example.org"
		in.Config.Entrypoint = []string{"/entry", "point"}
		in.HostConfig.Annotations = map[string]string{"a": "b"}
	})
	if s.Version != specs.Version || s.Hostname != "web" || s.Domainname != "example.org" || s.Annotations["a"] != "b" {
		t.Errorf("version %q, hostname %q, domain %q, annotations %v", s.Version, s.Hostname, s.Domainname, s.Annotations)
	}
	if s.Root.Path != "rootfs" || s.Root.Readonly || s.Linux.RootfsPropagation != "" {
		t.Errorf("root %+v, propagation %q", s.Root, s.Linux.RootfsPropagation)
	}
	if diff := cmp.Diff([]string{"/entry", "point", "sh"}, s.Process.Args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if s.Process.Cwd != "/" || s.Process.Terminal || s.Process.NoNewPrivileges || s.Process.ConsoleSize != nil || *s.Process.OOMScoreAdj != 0 {
		t.Errorf("process %+v", s.Process)
	}
	if s.Linux.CgroupsPath != "/davit/abc" || s.Linux.Resources.Memory != nil || s.Linux.Resources.CPU != nil || s.Linux.Resources.Pids != nil || s.Linux.Resources.BlockIO != nil {
		t.Errorf("cgroup %q, resources %+v", s.Linux.CgroupsPath, s.Linux.Resources)
	}
	masked := []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
		"/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonly := []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	if diff := cmp.Diff([][]string{masked, readonly}, [][]string{s.Linux.MaskedPaths, s.Linux.ReadonlyPaths}); diff != "" {
		t.Errorf("hidden paths (-want +got):\n%s", diff)
	}
	if len(s.Linux.Devices) != 0 {
		t.Errorf("devices %+v: making the usual ones is the runtime's job", s.Linux.Devices)
	}
	sysctls := map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
	if diff := cmp.Diff(sysctls, s.Linux.Sysctl); diff != "" {
		t.Errorf("sysctls (-want +got):\n%s", diff)
	}
	if s.Linux.Seccomp == nil {
		t.Error("there is no seccomp profile")
	}
}

func TestAnInitRunsTheCommand(t *testing.T) {
	s := build(t, func(in *Input) { in.Init, in.Config.Entrypoint = "/usr/lib/davit/davit-init", []string{"/entry"} })
	if diff := cmp.Diff([]string{"/sbin/docker-init", "--", "/entry", "sh"}, s.Process.Args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	want := specs.Mount{Destination: "/sbin/docker-init", Type: "bind", Source: "/usr/lib/davit/davit-init", Options: []string{"bind", "ro"}}
	if diff := cmp.Diff(want, s.Mounts[len(s.Mounts)-1]); diff != "" {
		t.Errorf("mount (-want +got):\n%s", diff)
	}
	_, err := Build(input(func(in *Input) { in.Init, in.Config.Cmd = "/usr/lib/davit/davit-init", nil }))
	refused(t, err, "no command specified")
}

func TestTheDefaultDeviceRulesOpenOnlyHarmlessDevices(t *testing.T) {
	n := func(i int64) *int64 { return &i }
	want := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "b", Access: "m"},
		{Allow: true, Type: "c", Major: n(136), Access: "rwm"},
	}
	// null, zero, full, random, urandom, tty, console, ptmx.
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}} {
		want = append(want, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: n(d[0]), Minor: n(d[1]), Access: "rwm"})
	}
	if diff := cmp.Diff(want, build(t, nil).Linux.Resources.Devices); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

// namespacesOf are the namespaces of a spec, "kind" or "kind=path".
func namespacesOf(s *specs.Spec) []string {
	var list []string
	for _, n := range s.Linux.Namespaces {
		text := string(n.Type)
		if n.Path != "" {
			text += "=" + n.Path
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

func TestNamespacesAreTheContainersOwnUnlessShared(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Input)
		want   string
	}{
		"own":                 {func(*Input) {}, "ipc mount network=/run/davit/netns/abc pid uts"},
		"host network":        {func(in *Input) { in.HostNetwork, in.Netns = true, "" }, "ipc mount pid uts"},
		"host pid":            {func(in *Input) { in.HostPID = true }, "ipc mount network=/run/davit/netns/abc uts"},
		"another's pid":       {func(in *Input) { in.PIDNS = "/proc/7/ns/pid" }, "ipc mount network=/run/davit/netns/abc pid=/proc/7/ns/pid uts"},
		"host ipc":            {func(in *Input) { in.HostIPC = true }, "mount network=/run/davit/netns/abc pid uts"},
		"another's ipc":       {func(in *Input) { in.IPCNS = "/proc/7/ns/ipc" }, "ipc=/proc/7/ns/ipc mount network=/run/davit/netns/abc pid uts"},
		"host uts":            {func(in *Input) { in.HostUTS = true }, "ipc mount network=/run/davit/netns/abc pid"},
		"private cgroup":      {func(in *Input) { in.HostConfig.CgroupnsMode = "private" }, "cgroup ipc mount network=/run/davit/netns/abc pid uts"},
		"host cgroup":         {func(in *Input) { in.HostConfig.CgroupnsMode, in.HostCgroupns = "host", true }, "ipc mount network=/run/davit/netns/abc pid uts"},
		"privileged, private": {func(in *Input) { in.HostConfig.Privileged, in.HostConfig.CgroupnsMode = true, "private" }, "cgroup ipc mount network=/run/davit/netns/abc pid uts"},
	} {
		t.Run(name, func(t *testing.T) {
			in := input(c.change)
			want := strings.Fields(c.want)
			// Left open, it is private where there is one hierarchy and the host's on v1.
			if in.HostConfig.CgroupnsMode.IsEmpty() && cgroups.Mode() == cgroups.Unified {
				want = append([]string{"cgroup"}, want...)
			}
			if diff := cmp.Diff(want, namespacesOf(build(t, c.change))); diff != "" {
				t.Errorf("namespaces (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAUserNamespaceHasItsMappings(t *testing.T) {
	ids := user.IdentityMapping{UIDMaps: []user.IDMap{{ParentID: 1000, Count: 10}}, GIDMaps: []user.IDMap{{ParentID: 2000, Count: 20}}}
	s := build(t, func(in *Input) { in.IDs, in.Netns = ids, "" })
	if !slices.Contains(namespacesOf(s), "user") || !slices.Contains(namespacesOf(s), "network") {
		t.Errorf("namespaces %q", namespacesOf(s))
	}
	if _, ok := s.Linux.Sysctl["net.ipv4.ping_group_range"]; ok {
		t.Errorf("sysctls %v name groups that are not mapped", s.Linux.Sysctl)
	}
	uids, gids := []specs.LinuxIDMapping{{HostID: 1000, Size: 10}}, []specs.LinuxIDMapping{{HostID: 2000, Size: 20}}
	if diff := cmp.Diff([][]specs.LinuxIDMapping{uids, gids}, [][]specs.LinuxIDMapping{s.Linux.UIDMappings, s.Linux.GIDMappings}); diff != "" {
		t.Errorf("mappings (-want +got):\n%s", diff)
	}
	if s := build(t, func(in *Input) { in.IDs, in.UserNS = ids, "/proc/7/ns/user" }); !slices.Contains(namespacesOf(s), "user=/proc/7/ns/user") {
		t.Errorf("namespaces %q", namespacesOf(s))
	}
}

func TestAPrivilegedContainerHasItsOwnCgroupNamespaceOnV2(t *testing.T) {
	if cgroups.Mode() != cgroups.Unified {
		t.Skip("the host has no unified cgroup hierarchy")
	}
	if got := namespacesOf(build(t, func(in *Input) { in.HostConfig.Privileged = true })); !slices.Contains(got, "cgroup") {
		t.Errorf("namespaces %q", got)
	}
}

func TestTheHostsNameIsNotChangedInItsNamespace(t *testing.T) {
	if s := build(t, func(in *Input) { in.HostUTS = true }); s.Hostname != "" {
		t.Errorf("hostname %q would be set on the host", s.Hostname)
	}
}

func TestAReadOnlyRootIsAskedForOfTheRuntime(t *testing.T) {
	if s := build(t, func(in *Input) { in.HostConfig.ReadonlyRootfs = true }); !s.Root.Readonly {
		t.Error("the root is writable")
	}
}

func TestAPrivilegedContainerSeesEverything(t *testing.T) {
	s := build(t, func(in *Input) { in.HostConfig.Privileged = true })
	if s.Linux.MaskedPaths != nil || s.Linux.ReadonlyPaths != nil || s.Linux.Seccomp != nil {
		t.Errorf("masked %q, read-only %q, seccomp %v", s.Linux.MaskedPaths, s.Linux.ReadonlyPaths, s.Linux.Seccomp)
	}
	if diff := cmp.Diff([]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, s.Linux.Resources.Devices); diff != "" {
		t.Errorf("device rules (-want +got):\n%s", diff)
	}
	if _, available := knownCapabilities(); !cmp.Equal(available, s.Process.Capabilities.Bounding) {
		t.Errorf("capabilities %q", s.Process.Capabilities.Bounding)
	}
	if !slices.ContainsFunc(s.Linux.Devices, func(d specs.LinuxDevice) bool {
		return d.Path == "/dev/null" && d.Type == "c" && d.Major == 1 && d.Minor == 3
	}) {
		t.Error("/dev/null is not among the devices")
	}
	for _, d := range s.Linux.Devices {
		if strings.HasPrefix(d.Path, "/dev/pts/") || strings.HasPrefix(d.Path, "/dev/shm/") || d.Path == "/dev/console" || d.Path == "/dev/ptmx" {
			t.Errorf("%s is the host's own", d.Path)
		}
	}
	for _, m := range s.Mounts {
		if (m.Destination == "/sys" || m.Destination == "/sys/fs/cgroup") && slices.Contains(m.Options, "ro") {
			t.Errorf("%s is read-only: %q", m.Destination, m.Options)
		}
	}
}

func TestWhatIsHiddenCanBeChosen(t *testing.T) {
	s := build(t, func(in *Input) {
		in.HostConfig.MaskedPaths, in.HostConfig.ReadonlyPaths = []string{}, []string{"/proc/mine"}
	})
	if s.Linux.MaskedPaths == nil || len(s.Linux.MaskedPaths) != 0 || !cmp.Equal(s.Linux.ReadonlyPaths, []string{"/proc/mine"}) {
		t.Errorf("masked %q, read-only %q", s.Linux.MaskedPaths, s.Linux.ReadonlyPaths)
	}
}

func TestSysctlsMayOnlyTouchWhatIsTheContainersOwn(t *testing.T) {
	for name, c := range map[string]struct {
		key     string
		change  func(*Input)
		refusal string
	}{
		"network":              {"net.core.somaxconn", nil, ""},
		"network with slashes": {"net/core/somaxconn", nil, ""},
		"a default":            {"net.ipv4.ip_unprivileged_port_start", nil, ""},
		"message queues":       {"fs.mqueue.msg_max", nil, ""},
		"shared memory":        {"kernel.shmmax", nil, ""},
		"domain":               {"kernel.domainname", nil, ""},
		"network of the host":  {"net.core.somaxconn", func(in *Input) { in.HostNetwork = true }, "sysctl 'net.core.somaxconn' not allowed in host network namespace"},
		"queues of the host":   {"fs.mqueue.msg_max", func(in *Input) { in.HostIPC = true }, "sysctl 'fs.mqueue.msg_max' not allowed in host ipc namespace"},
		"memory of the host":   {"kernel.shm_rmid_forced", func(in *Input) { in.HostIPC = true }, "sysctl 'kernel.shm_rmid_forced' not allowed in host ipc namespace"},
		"domain of the host":   {"kernel.domainname", func(in *Input) { in.HostUTS = true }, "sysctl 'kernel.domainname' not allowed in host uts namespace"},
		"the kernel's":         {"kernel.panic", nil, "sysctl 'kernel.panic' is not in a separate kernel namespace"},
		"memory's":             {"vm.swappiness", nil, "sysctl 'vm.swappiness' is not in a separate kernel namespace"},
		"files'":               {"fs.file-max", nil, "sysctl 'fs.file-max' is not in a separate kernel namespace"},
		"with slashes":         {"vm/swappiness", nil, "sysctl 'vm/swappiness' is not in a separate kernel namespace"},
		"none":                 {"", nil, "sysctl '' is not in a separate kernel namespace"},
		"a prefix alone":       {"network", nil, "sysctl 'network' is not in a separate kernel namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Build(input(func(in *Input) {
				in.HostConfig.Sysctls = map[string]string{c.key: "7"}
				if c.change != nil {
					c.change(in)
				}
			}))
			if c.refusal != "" {
				refused(t, err, c.refusal)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Linux.Sysctl[strings.ReplaceAll(c.key, "/", ".")]; got != "7" {
				t.Errorf("sysctls are %v", s.Linux.Sysctl)
			}
		})
	}
}

func TestNetworkDefaultsAreOnlyForANetworkOfItsOwn(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"the host's": func(in *Input) { in.HostNetwork = true },
		"another's":  func(in *Input) { in.HostConfig.NetworkMode = "container:def" },
	} {
		if s := build(t, change); len(s.Linux.Sysctl) != 0 {
			t.Errorf("in %s network: %v", name, s.Linux.Sysctl)
		}
	}
}

func TestTheSpecIsWrittenAsTheRuntimeReadsIt(t *testing.T) {
	want := build(t, func(in *Input) { in.HostConfig.Memory = 64 << 20 })
	body, err := Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := &specs.Spec{}
	if err := json.Unmarshal(body, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spec (-written +read):\n%s", diff)
	}
}
