package native

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestSpecsAreReadWhole(t *testing.T) {
	want := &specs.Spec{
		Version: specs.Version, Hostname: "h", Root: &specs.Root{Path: "r"}, Process: &specs.Process{Cwd: "/", Args: []string{"a"}},
		Linux: &specs.Linux{
			CgroupsPath: "/c", MaskedPaths: []string{"/m"},
			Seccomp: &specs.LinuxSeccomp{
				DefaultAction: specs.ActErrno, ListenerPath: "/l",
				Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "write"}, Action: specs.ActAllow}},
			},
		},
	}
	body, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	d := &Driver{}
	first, filter, err := d.readSpec(body)
	if diff := cmp.Diff(want, first); err != nil || diff != "" || filter == nil || len(filter.Program) == 0 {
		t.Errorf("%v, filter %+v (-want +got)\n%s", err, filter, diff)
	}
	second, same, err := d.readSpec(body)
	if diff := cmp.Diff(want, second); err != nil || diff != "" || same != filter {
		t.Errorf("%v, another filter: %v (-want +got)\n%s", err, same != filter, diff)
	}
	want.Linux.Seccomp = nil
	if body, err = json.Marshal(want); err != nil {
		t.Fatal(err)
	}
	without, filter, err := d.readSpec(body)
	if diff := cmp.Diff(want, without); err != nil || diff != "" || filter != nil {
		t.Errorf("%v, filter %+v (-want +got)\n%s", err, filter, diff)
	}
}

func TestSpecsThatCannotBeRead(t *testing.T) {
	for _, body := range []string{"", "{", `{"linux": 1}`, `{"linux": {"seccomp": 1}}`, `{"linux": {"seccomp": {"defaultAction": 1}}}`} {
		if _, _, err := (&Driver{}).readSpec([]byte(body)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestProfilesAreNotKeptWithoutEnd(t *testing.T) {
	p := &profiles{}
	for i := range 3 * mostProfiles {
		if _, err := p.get(fmt.Appendf(nil, `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":%d}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.known) > mostProfiles {
		t.Errorf("%d profiles are kept", len(p.known))
	}
}
