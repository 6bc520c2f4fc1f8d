package spec

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var dockers = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// possible sorts names and leaves out what the test itself may not hand on.
func possible(names ...string) []string {
	_, available := knownCapabilities()
	list := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !slices.Contains(available, name) })
	slices.Sort(list)
	return slices.Compact(list)
}

func without(names []string, gone ...string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(gone, name) })
}

func TestCapabilitiesAreAddedAndDropped(t *testing.T) {
	_, available := knownCapabilities()
	for name, c := range map[string]struct{ add, drop, want []string }{
		"Docker's":               {nil, nil, dockers},
		"one more":               {[]string{"NET_ADMIN"}, nil, append([]string{"CAP_NET_ADMIN"}, dockers...)},
		"in any spelling":        {[]string{"cap_net_admin", "Sys_Time"}, nil, append([]string{"CAP_NET_ADMIN", "CAP_SYS_TIME"}, dockers...)},
		"one that is there":      {[]string{"CHOWN"}, nil, dockers},
		"one less":               {nil, []string{"CAP_CHOWN"}, without(dockers, "CAP_CHOWN")},
		"one that is not there":  {nil, []string{"SYS_ADMIN"}, dockers},
		"both":                   {[]string{"NET_ADMIN"}, []string{"MKNOD"}, append([]string{"CAP_NET_ADMIN"}, without(dockers, "CAP_MKNOD")...)},
		"none":                   {nil, []string{"ALL"}, nil},
		"none but one":           {[]string{"CHOWN"}, []string{"all"}, []string{"CAP_CHOWN"}},
		"all":                    {[]string{"ALL"}, nil, available},
		"all but one":            {[]string{"all"}, []string{"SYS_ADMIN"}, without(available, "CAP_SYS_ADMIN")},
		"added and dropped":      {[]string{"NET_ADMIN"}, []string{"NET_ADMIN"}, append([]string{"CAP_NET_ADMIN"}, dockers...)},
		"a default, both":        {[]string{"CHOWN"}, []string{"CHOWN"}, dockers},
		"all added, all dropped": {[]string{"ALL"}, []string{"ALL"}, available},
	} {
		t.Run(name, func(t *testing.T) {
			caps := build(t, func(in *Input) { in.HostConfig.CapAdd, in.HostConfig.CapDrop = c.add, c.drop }).Process.Capabilities
			got := slices.Sorted(slices.Values(caps.Bounding))
			if diff := cmp.Diff(possible(c.want...), got); diff != "" && len(c.want)+len(got) > 0 {
				t.Errorf("capabilities (-want +got):\n%s", diff)
			}
			// Nothing may be in one set and not in another, and nothing inherited.
			if !slices.Equal(caps.Bounding, caps.Effective) || !slices.Equal(caps.Bounding, caps.Permitted) || caps.Inheritable != nil || caps.Ambient != nil {
				t.Errorf("sets %+v", caps)
			}
		})
	}
}

func TestUnknownCapabilitiesAreRefused(t *testing.T) {
	_, err := Build(input(func(in *Input) { in.HostConfig.CapAdd = []string{"CHOWN", "CAP_NOSUCH"} }))
	refused(t, err, `invalid CapAdd: unknown capability: "CAP_NOSUCH"`)
	_, err = Build(input(func(in *Input) { in.HostConfig.CapDrop = []string{"CAP_"} }))
	refused(t, err, `invalid CapDrop: unknown capability: "CAP_"`)
	// A wrong name is wrong even where the others do not count.
	_, err = Build(input(func(in *Input) { in.HostConfig.Privileged, in.HostConfig.CapAdd = true, []string{"CAP_NOSUCH"} }))
	refused(t, err, `invalid CapAdd: unknown capability: "CAP_NOSUCH"`)
}

func TestOnlyRootStartsWithCapabilities(t *testing.T) {
	caps := build(t, func(in *Input) { in.Config.User = "www" }).Process.Capabilities
	if caps.Effective != nil || caps.Permitted != nil || !cmp.Equal(possible(dockers...), slices.Sorted(slices.Values(caps.Bounding))) {
		t.Errorf("capabilities of an ordinary user %+v", caps)
	}
}

func TestSecurityOptionsAreRead(t *testing.T) {
	const profile = `{"defaultAction":"SCMP_ACT_ALLOW"}`
	for option, want := range map[string]security{
		"no-new-privileges":            {noNewPrivileges: true},
		"no-new-privileges=true":       {noNewPrivileges: true},
		"no-new-privileges:true":       {noNewPrivileges: true},
		"no-new-privileges=false":      {},
		"no-new-privileges:0":          {},
		"seccomp=unconfined":           {seccomp: "unconfined"},
		"seccomp:unconfined":           {seccomp: "unconfined"},
		"seccomp=builtin":              {},
		"seccomp=" + profile:           {seccomp: profile},
		"label=disable":                {},
		"disable":                      {},
		"writable-cgroups=true":        {writableCgroups: true},
		"label:disable":                {},
		"apparmor=unconfined":          {apparmor: "unconfined"},
		"apparmor:mine":                {apparmor: "mine"},
		"seccomp=x no-new-privileges":  {seccomp: "x", noNewPrivileges: true},
		"no-new-privileges seccomp=x ": {seccomp: "x", noNewPrivileges: true},
	} {
		got, err := parseSecurity(strings.Fields(option))
		if err != nil || got != want {
			t.Errorf("%s is read as %+v, %v", option, got, err)
		}
	}
}

func TestBadSecurityOptionsAreRefused(t *testing.T) {
	for option, text := range map[string]string{
		"nosuch=x": `invalid --security-opt 2: "nosuch=x"`, "=x": `invalid --security-opt 2: "=x"`, "nosuch:x": `invalid --security-opt 2: "nosuch:x"`,
		"systempaths=unconfined": `invalid --security-opt 2: "systempaths=unconfined"`, "seccomp": `invalid --security-opt 1: "seccomp"`,
		"writable-cgroups=maybe":  `invalid --security-opt 2: "writable-cgroups=maybe"`,
		"no-new-privileges=maybe": `invalid --security-opt 2: "no-new-privileges=maybe"`,
	} {
		_, err := Build(input(func(in *Input) { in.HostConfig.SecurityOpt = []string{option} }))
		refused(t, err, text)
	}
	// What is not there is not pretended: a container that asked to be confined
	// must not run as if it was.
	for _, option := range []string{"label=type:svirt_t"} {
		_, err := Build(input(func(in *Input) { in.HostConfig.SecurityOpt = []string{option} }))
		if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "--security-opt "+option) {
			t.Errorf("%s is answered %v", option, err)
		}
	}
}

func TestNoNewPrivilegesReachesTheProcess(t *testing.T) {
	if p := build(t, func(in *Input) { in.HostConfig.SecurityOpt = []string{"no-new-privileges"} }).Process; !p.NoNewPrivileges {
		t.Error("the process may gain privileges")
	}
}

func TestTheSeccompProfileIsDockersUnlessChosen(t *testing.T) {
	const own = `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`
	for name, c := range map[string]struct {
		options    []string
		privileged bool
		calls      int // allowed system calls: 0 for no profile, -1 for Docker's
	}{
		"none chosen":           {nil, false, -1},
		"Docker's by name":      {[]string{"seccomp=builtin"}, false, -1},
		"unconfined":            {[]string{"seccomp=unconfined"}, false, 0},
		"its own":               {[]string{"seccomp=" + own}, false, 1},
		"privileged":            {nil, true, 0},
		"privileged, by name":   {[]string{"seccomp=builtin"}, true, 0},
		"privileged, its own":   {[]string{"seccomp=" + own}, true, 1},
		"privileged unconfined": {[]string{"seccomp=unconfined"}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			profile := build(t, func(in *Input) { in.HostConfig.SecurityOpt, in.HostConfig.Privileged = c.options, c.privileged }).Linux.Seccomp
			if c.calls == 0 {
				if profile != nil {
					t.Errorf("there is a profile: %+v", profile)
				}
				return
			}
			if profile == nil || profile.DefaultAction != specs.ActErrno {
				t.Fatalf("profile %+v", profile)
			}
			calls := 0
			for _, rule := range profile.Syscalls {
				calls += len(rule.Names)
			}
			if c.calls > 0 && calls != c.calls || c.calls < 0 && calls < 300 {
				t.Errorf("%d system calls are ruled on", calls)
			}
		})
	}
	_, err := Build(input(func(in *Input) { in.HostConfig.SecurityOpt = []string{"seccomp={"} }))
	refused(t, err, "Decoding seccomp profile failed: ")
}

// The profile depends on the capabilities: one that is kept for later must not
// serve containers of others.
func TestASeccompProfileGoesWithItsCapabilities(t *testing.T) {
	allows := func(s *specs.Spec, call string) bool {
		return slices.ContainsFunc(s.Linux.Seccomp.Syscalls, func(rule specs.LinuxSyscall) bool {
			return rule.Action == specs.ActAllow && slices.Contains(rule.Names, call)
		})
	}
	for range 2 { // made, and kept
		if s := build(t, nil); allows(s, "mount") {
			t.Error("a plain container may mount")
		}
		if s := build(t, func(in *Input) { in.HostConfig.CapAdd = []string{"SYS_ADMIN"} }); !allows(s, "mount") && slices.Contains(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN") {
			t.Error("a container with CAP_SYS_ADMIN may not mount")
		}
	}
}

// Which AppArmor profile a process has, where the engine has one for those that name
// none, and where it has not.
func TestAppArmorProfile(t *testing.T) {
	for _, c := range []struct {
		option           string
		privileged, exec bool
		want, without    string // with and without a default
		shown            string
	}{
		{want: "default", shown: "default"},
		{privileged: true, shown: "unconfined"},
		{option: "apparmor=unconfined", shown: "unconfined"},
		{option: "apparmor=mine", want: "mine", without: "mine", shown: "mine"},
		{option: "apparmor=mine", privileged: true, want: "mine", without: "mine", shown: "mine"},
		{option: "apparmor=mine", exec: true, shown: "mine"},
		{exec: true, shown: "default"},
	} {
		for profile, want := range map[string]string{"default": c.want, "": c.without} {
			in := input(func(in *Input) {
				in.AppArmor, in.HostConfig.Privileged = profile, c.privileged
				if c.option != "" {
					in.HostConfig.SecurityOpt = []string{c.option}
				}
			})
			built, err := Build(in)
			if err != nil {
				t.Fatal(err)
			}
			got := built.Process.ApparmorProfile
			if c.exec { // a privileged exec
				process, err := BuildExec(ExecInput{Config: in.Config, HostConfig: in.HostConfig, AppArmor: profile, Request: container.ExecCreateRequest{Cmd: []string{"sh"}, Privileged: true}})
				if err != nil {
					t.Fatal(err)
				}
				got = process.ApparmorProfile
			}
			if got != want {
				t.Errorf("%+v with default %q: %q, want %q", c, profile, got, want)
			}
			if shown := AppArmorProfile(in.HostConfig, profile); profile != "" && shown != c.shown {
				t.Errorf("%+v is shown as %q", c, shown)
			}
		}
	}
}
