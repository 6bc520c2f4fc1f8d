package spec

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestUsersAreLookedUpInTheImage(t *testing.T) {
	for name, c := range map[string]struct {
		user     string
		groupAdd []string
		uid, gid uint32
		groups   []uint32 // besides the primary one
		home     string
	}{
		"nobody named":           {uid: 0, gid: 0, home: "/root"},
		"by name":                {user: "www", uid: 33, gid: 34, groups: []uint32{50, 63}, home: "/var/www"},
		"by number":              {user: "33", uid: 33, gid: 34, groups: []uint32{50, 63}, home: "/var/www"},
		"with a group":           {user: "www:audio", uid: 33, gid: 63, home: "/var/www"},
		"with a group's number":  {user: "www:99", uid: 33, gid: 99, home: "/var/www"},
		"numbers of nobody":      {user: "1234:5678", uid: 1234, gid: 5678, home: "/"},
		"a number of nobody":     {user: "1234", uid: 1234, gid: 0, home: "/"},
		"without a home":         {user: "nohome", uid: 40, gid: 41, home: "/"},
		"with another group":     {user: "nohome", groupAdd: []string{"video", "1000"}, uid: 40, gid: 41, groups: []uint32{44, 1000}, home: "/"},
		"with a group it has":    {user: "www", groupAdd: []string{"audio"}, uid: 33, gid: 34, groups: []uint32{50, 63}, home: "/var/www"},
		"with a group, and more": {user: "www:audio", groupAdd: []string{"video"}, uid: 33, gid: 63, groups: []uint32{44}, home: "/var/www"},
	} {
		t.Run(name, func(t *testing.T) {
			p := build(t, func(in *Input) { in.Config.User, in.HostConfig.GroupAdd = c.user, c.groupAdd }).Process
			if p.User.UID != c.uid || p.User.GID != c.gid {
				t.Errorf("user %d:%d, want %d:%d", p.User.UID, p.User.GID, c.uid, c.gid)
			}
			groups := slices.DeleteFunc(slices.Clone(p.User.AdditionalGids), func(gid uint32) bool { return gid == c.gid })
			slices.Sort(groups)
			if !slices.Equal(groups, c.groups) {
				t.Errorf("groups %v, want %v", groups, c.groups)
			}
			if !slices.Contains(p.Env, "HOME="+c.home) {
				t.Errorf("environment %q, want home %s", p.Env, c.home)
			}
		})
	}
}

// Without its primary group among the supplementary ones, a process can drop
// that group by running a setgid program, and with it what a group is denied.
func TestThePrimaryGroupIsOneOfTheGroups(t *testing.T) {
	for user, want := range map[string][]uint32{"": {0}, "www": {34, 50, 63}, "1234:5678": {5678}} {
		p := build(t, func(in *Input) { in.Config.User = user }).Process
		if !slices.Equal(p.User.AdditionalGids, want) {
			t.Errorf("groups of %q are %v, want %v", user, p.User.AdditionalGids, want)
		}
	}
}

func TestUnknownUsersAndGroupsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Input)
		text   string
	}{
		"user":             {func(in *Input) { in.Config.User = "nosuch" }, "unable to find user nosuch: no matching entries in passwd file"},
		"user, no file":    {func(in *Input) { in.Config.User, in.Passwd = "www", nil }, "unable to find user www: no matching entries in passwd file"},
		"group":            {func(in *Input) { in.Config.User = "www:nosuch" }, "unable to find group nosuch: no matching entries in group file"},
		"group, no file":   {func(in *Input) { in.Config.User, in.Group = "www:audio", nil }, "unable to find group audio: no matching entries in group file"},
		"additional group": {func(in *Input) { in.HostConfig.GroupAdd = []string{"nosuch"} }, "unable to find group nosuch: no matching entries in group file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Build(input(c.change))
			refused(t, err, c.text)
		})
	}
}

func TestNumbersNeedNoAccountsFiles(t *testing.T) {
	p := build(t, func(in *Input) { in.Config.User, in.Passwd, in.Group = "7:8", nil, nil }).Process
	if p.User.UID != 7 || p.User.GID != 8 {
		t.Errorf("user %+v", p.User)
	}
}

func TestTheEnvironmentIsMerged(t *testing.T) {
	const usual = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOSTNAME=web"
	for name, c := range map[string]struct {
		env  []string
		tty  bool
		want string
	}{
		"nothing":              {nil, false, usual + " HOME=/root"},
		"a terminal":           {nil, true, usual + " TERM=xterm HOME=/root"},
		"a path of its own":    {[]string{"PATH=/x"}, false, "PATH=/x HOSTNAME=web HOME=/root"},
		"a home of its own":    {[]string{"HOME=/x"}, false, usual + " HOME=/x"},
		"no home":              {[]string{"HOME="}, false, usual + " HOME="},
		"the last one counts":  {[]string{"A=1", "B=2", "A=3"}, false, usual + " A=3 B=2 HOME=/root"},
		"a value with an =":    {[]string{"A=b=c"}, false, usual + " A=b=c HOME=/root"},
		"one taken away":       {[]string{"HOSTNAME"}, false, strings.TrimSuffix(usual, " HOSTNAME=web") + " HOME=/root"},
		"one that never was":   {[]string{"A"}, false, usual + " HOME=/root"},
		"away and back":        {[]string{"A=1", "B=2", "A", "A=3"}, false, usual + " B=2 A=3 HOME=/root"},
		"not a prefix's value": {[]string{"HOMER=1"}, false, usual + " HOMER=1 HOME=/root"},
	} {
		t.Run(name, func(t *testing.T) {
			p := build(t, func(in *Input) { in.Config.Env, in.Config.Tty = c.env, c.tty }).Process
			if got := strings.Join(p.Env, " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestATerminalHasItsSize(t *testing.T) {
	for _, c := range []struct {
		tty  bool
		size [2]uint
		want *specs.Box
	}{
		{true, [2]uint{24, 80}, &specs.Box{Height: 24, Width: 80}}, {true, [2]uint{}, nil}, {false, [2]uint{24, 80}, nil},
	} {
		p := build(t, func(in *Input) { in.Config.Tty, in.HostConfig.ConsoleSize = c.tty, c.size }).Process
		if p.Terminal != c.tty || !cmp.Equal(c.want, p.ConsoleSize) {
			t.Errorf("terminal %v of %v: %v %+v", c.tty, c.size, p.Terminal, p.ConsoleSize)
		}
	}
}

func TestWithoutACommandThereIsNoProcess(t *testing.T) {
	_, err := Build(input(func(in *Input) { in.Config.Cmd = nil }))
	refused(t, err, "no command specified")
}

func TestLimitsOfProcesses(t *testing.T) {
	p := build(t, func(in *Input) {
		in.HostConfig.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 1024, Hard: 4096}, {Name: "CORE", Soft: -1, Hard: -1}}
	}).Process
	want := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 4096}, {Type: "RLIMIT_CORE", Soft: math.MaxUint64, Hard: math.MaxUint64}}
	if diff := cmp.Diff(want, p.Rlimits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	_, err := Build(input(func(in *Input) { in.HostConfig.Ulimits = []*container.Ulimit{{Name: "nosuch"}} }))
	refused(t, err, "invalid ulimit type: nosuch (known: core, cpu, data, ")
}

// JSON can hold null where Docker's types hold a pointer.
func TestANullLimitIsRefused(t *testing.T) {
	_, err := Build(input(func(in *Input) { in.HostConfig.Ulimits = []*container.Ulimit{nil} }))
	refused(t, err, "")
}

func TestTheOOMScoreHasBounds(t *testing.T) {
	for _, score := range []int{-1000, -1, 1, 1000} {
		p := build(t, func(in *Input) { in.HostConfig.OomScoreAdj = score }).Process
		if p.OOMScoreAdj == nil || *p.OOMScoreAdj != score {
			t.Errorf("%d is written as %v", score, p.OOMScoreAdj)
		}
	}
	for score, text := range map[int]string{
		1001: "Invalid value 1001, range for oom score adj is [-1000, 1000]", -1001: "Invalid value -1001, range for oom score adj is [-1000, 1000]",
	} {
		_, err := Build(input(func(in *Input) { in.HostConfig.OomScoreAdj = score }))
		refused(t, err, text)
	}
}

func execInput(req container.ExecCreateRequest, change func(*ExecInput)) ExecInput {
	in := ExecInput{
		Config:     &container.Config{Hostname: "web", User: "www", WorkingDir: "/srv", Env: []string{"A=1", "B=2"}},
		HostConfig: &container.HostConfig{}, Request: req, Passwd: []byte(passwd), Group: []byte(group),
	}
	if change != nil {
		change(&in)
	}
	return in
}

func TestAnExecIsTheContainersProcessButForWhatItAsks(t *testing.T) {
	p, err := BuildExec(execInput(container.ExecCreateRequest{Cmd: []string{"ls", "-l"}}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if p.User.UID != 33 || p.Cwd != "/srv" || p.Terminal || !slices.Equal(p.Args, []string{"ls", "-l"}) {
		t.Errorf("process %+v", p)
	}
	if got, want := strings.Join(p.Env[1:], " "), "HOSTNAME=web A=1 B=2 HOME=/var/www"; got != want {
		t.Errorf("environment %s, want %s", got, want)
	}
	p, err = BuildExec(execInput(container.ExecCreateRequest{
		Cmd: []string{"sh"}, User: "0:audio", WorkingDir: "/tmp", Env: []string{"B=3", "C=4"}, Tty: true, ConsoleSize: &[2]uint{24, 80},
	}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if p.User.UID != 0 || p.User.GID != 63 || p.Cwd != "/tmp" || !p.Terminal || !cmp.Equal(p.ConsoleSize, &specs.Box{Height: 24, Width: 80}) {
		t.Errorf("process %+v", p)
	}
	if got, want := strings.Join(p.Env[1:], " "), "HOSTNAME=web TERM=xterm A=1 B=3 C=4 HOME=/root"; got != want {
		t.Errorf("environment %s, want %s", got, want)
	}
}

func TestAnExecMayBePrivilegedAlone(t *testing.T) {
	for name, c := range map[string]struct {
		req, host bool
		all       bool
	}{"neither": {false, false, false}, "the exec": {true, false, true}, "the container": {false, true, true}} {
		p, err := BuildExec(execInput(container.ExecCreateRequest{Cmd: []string{"sh"}, User: "0", Privileged: c.req}, func(in *ExecInput) { in.HostConfig.Privileged = c.host }))
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(p.Capabilities.Effective, "CAP_SYS_ADMIN"); got != c.all {
			t.Errorf("%s is privileged: it may administer the system is %v", name, got)
		}
	}
}

func TestAnExecIsRefusedLikeAContainer(t *testing.T) {
	_, err := BuildExec(execInput(container.ExecCreateRequest{}, nil))
	refused(t, err, "no command specified")
	_, err = BuildExec(execInput(container.ExecCreateRequest{Cmd: []string{"sh"}, User: "nosuch"}, nil))
	refused(t, err, "unable to find user nosuch: no matching entries in passwd file")
	_, err = BuildExec(execInput(container.ExecCreateRequest{Cmd: []string{"sh"}}, func(in *ExecInput) { in.HostConfig.SecurityOpt = []string{"nosuch=x"} }))
	refused(t, err, `invalid --security-opt 2: "nosuch=x"`)
}
