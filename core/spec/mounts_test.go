package spec

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// tableOf is a spec's mounts as lines "destination type source options".
func tableOf(s *specs.Spec) []string {
	var lines []string
	for _, m := range s.Mounts {
		lines = append(lines, fmt.Sprintf("%s %s %s %s", m.Destination, m.Type, m.Source, strings.Join(m.Options, ",")))
	}
	return lines
}

func TestTheDefaultMountsAreDockers(t *testing.T) {
	want := []string{
		"/proc proc proc nosuid,noexec,nodev",
		"/dev tmpfs tmpfs nosuid,strictatime,mode=755,size=65536k",
		"/dev/pts devpts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
		"/sys sysfs sysfs nosuid,noexec,nodev,ro",
		"/sys/fs/cgroup cgroup cgroup ro,nosuid,noexec,nodev",
		"/dev/mqueue mqueue mqueue nosuid,noexec,nodev",
		"/dev/shm tmpfs shm nosuid,noexec,nodev,mode=1777,size=67108864",
	}
	if diff := cmp.Diff(want, tableOf(build(t, nil))); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

func TestUserMountsReplaceTheDefaults(t *testing.T) {
	for name, c := range map[string]struct {
		own  []string
		gone []string // defaults that are not mounted then
	}{
		"elsewhere":                {[]string{"/data", "/device"}, nil},
		"shared memory":            {[]string{"/dev/shm"}, []string{"/dev/shm"}},
		"in other words":           {[]string{"/dev//shm/"}, []string{"/dev/shm"}},
		"below a default":          {[]string{"/sys/fs/cgroup/memory"}, nil},
		"all of sys":               {[]string{"/sys"}, []string{"/sys"}},
		"all devices":              {[]string{"/dev"}, []string{"/dev", "/dev/pts", "/dev/mqueue", "/dev/shm"}},
		"all devices, and a queue": {[]string{"/dev", "/dev/mqueue"}, []string{"/dev", "/dev/pts", "/dev/mqueue", "/dev/shm"}},
	} {
		t.Run(name, func(t *testing.T) {
			var own []specs.Mount
			for _, destination := range c.own {
				own = append(own, specs.Mount{Destination: destination, Type: "bind", Source: "/from"})
			}
			var want []string
			for _, m := range defaultMounts(input(nil), false) {
				if !slices.Contains(c.gone, m.Destination) {
					want = append(want, m.Destination)
				}
			}
			want = append(want, c.own...) // the user's come last, in their order
			var got []string
			for _, m := range build(t, func(in *Input) { in.Mounts = own }).Mounts {
				got = append(got, m.Destination)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheHostsIPCBringsItsFiles(t *testing.T) {
	lines := tableOf(build(t, func(in *Input) { in.HostIPC = true }))
	for _, want := range []string{"/dev/shm bind /dev/shm rbind,nosuid,noexec,nodev", "/dev/mqueue bind /dev/mqueue rbind,nosuid,noexec,nodev"} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not among\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

func TestSharedMemoryOfAnotherContainerIsMounted(t *testing.T) {
	lines := tableOf(build(t, func(in *Input) { in.Shm = "/var/lib/davit/containers/def/shm" }))
	if want := "/dev/shm bind /var/lib/davit/containers/def/shm rbind,nosuid,noexec,nodev"; !slices.Contains(lines, want) {
		t.Errorf("%q is not among\n%s", want, strings.Join(lines, "\n"))
	}
}

func TestCgroupsAreWritableWhereAsked(t *testing.T) {
	for option, want := range map[string]string{
		"writable-cgroups=true":  "/sys/fs/cgroup cgroup cgroup nosuid,noexec,nodev",
		"writable-cgroups=false": "/sys/fs/cgroup cgroup cgroup ro,nosuid,noexec,nodev",
	} {
		lines := tableOf(build(t, func(in *Input) { in.HostConfig.SecurityOpt = []string{option} }))
		if !slices.Contains(lines, want) || !slices.Contains(lines, "/sys sysfs sysfs nosuid,noexec,nodev,ro") {
			t.Errorf("%s: mounts\n%s", option, strings.Join(lines, "\n"))
		}
	}
}

func TestIPCModeNoneHasNoSharedMemory(t *testing.T) {
	s := build(t, func(in *Input) { in.HostConfig.IpcMode = "none" })
	if slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/shm" }) {
		t.Errorf("mounts\n%s", strings.Join(tableOf(s), "\n"))
	}
}

func TestTheRootPropagatesAsWidelyAsAMountNeeds(t *testing.T) {
	for options, want := range map[string]string{
		"": "", "rbind,rprivate": "", "rbind,private": "", "rbind,rslave": "rslave", "bind,slave": "rslave",
		"rbind,rshared": "shared", "bind,shared": "shared", "rbind,rslave rbind,rshared": "shared", "rbind,rshared rbind,rslave": "shared",
	} {
		s := build(t, func(in *Input) {
			for i, list := range strings.Fields(options) {
				in.Mounts = append(in.Mounts, specs.Mount{Destination: fmt.Sprintf("/m%d", i), Type: "bind", Source: "/from", Options: strings.Split(list, ",")})
			}
		})
		if s.Linux.RootfsPropagation != want {
			t.Errorf("with %q it is %q, want %q", options, s.Linux.RootfsPropagation, want)
		}
	}
}

// Specs are made for many containers at once: one's options must not be another's.
func TestOneSpecDoesNotChangeAnother(t *testing.T) {
	want := tableOf(build(t, nil))
	build(t, func(in *Input) { in.HostConfig.Privileged, in.HostIPC = true, true })
	if diff := cmp.Diff(want, tableOf(build(t, nil))); diff != "" {
		t.Errorf("mounts (-before +after):\n%s", diff)
	}
}
