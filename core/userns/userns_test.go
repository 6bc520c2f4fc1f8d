package userns

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestARangeMapsUsersAndGroups(t *testing.T) {
	ids, err := Load("100000-165535")
	if err != nil {
		t.Fatal(err)
	}
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	if diff := cmp.Diff([][]specs.LinuxIDMapping{want, want}, [][]specs.LinuxIDMapping{Mappings(ids.UIDMaps), Mappings(ids.GIDMaps)}); diff != "" {
		t.Errorf("mappings (-want +got):\n%s", diff)
	}
	if uid, gid, err := ids.ToHost(5, 65535); uid != 100005 || gid != 165535 || err != nil {
		t.Errorf("5:65535 is %d:%d, %v", uid, gid, err)
	}
}

func TestNoSettingIsNoMapping(t *testing.T) {
	if ids, err := Load(""); err != nil || !ids.Empty() {
		t.Errorf("%+v, %v", ids, err)
	}
}

func TestWhatMapsNobodyIsRefused(t *testing.T) {
	for _, setting := range []string{"no-such-user", "4000000000", "99999999999999999999", "5-4", "0-100", "1-4294967296", "default:x"} {
		_, err := Load(setting)
		if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), `userns_remap = "`+setting+`": `) {
			t.Errorf("%s is answered %v", setting, err)
		}
	}
}

func TestSeveralRangesAreOneAfterTheOther(t *testing.T) {
	got := Mappings([]user.IDMap{{ID: 0, ParentID: 1000, Count: 10}, {ID: 10, ParentID: 5000, Count: 20}})
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}, {ContainerID: 10, HostID: 5000, Size: 20}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mappings (-want +got):\n%s", diff)
	}
}
