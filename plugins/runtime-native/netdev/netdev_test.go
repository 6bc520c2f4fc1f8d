package netdev

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestCheck(t *testing.T) {
	own := []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}
	for want, devices := range map[string]map[string]specs.LinuxNetDevice{
		`"a/b" is not a name`:           {"a/b": {}},
		`"" is not a name`:              {"": {}},
		`"sixteenletterslo" is not`:     {"e0": {Name: "sixteenletterslo"}},
		"two devices would be called x": {"e0": {Name: "x"}, "e1": {Name: "x"}},
	} {
		if err := Check(devices, own); err == nil || !strings.Contains(err.Error(), want) || !errdefs.IsInvalidArgument(err) {
			t.Errorf("want an invalid argument with %q, got %v", want, err)
		}
	}
	if err := Check(map[string]specs.LinuxNetDevice{"e0": {Name: "x%d"}, "e1": {Name: "x%d"}}, own); err != nil {
		t.Error(err)
	}
	if err := Check(map[string]specs.LinuxNetDevice{"e0": {}}, nil); err == nil || !strings.Contains(err.Error(), "network namespace") {
		t.Errorf("without a namespace: %v", err)
	}
}
