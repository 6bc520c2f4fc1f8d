package plugin

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestPluginsHaveWhatTheyDeclare reads the capabilities of plugins' processes.
func TestPluginsHaveWhatTheyDeclare(t *testing.T) {
	own, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	bounding := func(status string) string {
		return regexp.MustCompile(`CapBnd:\s+(\w+)`).FindStringSubmatch(status)[1]
	}
	for name, c := range map[string]struct {
		declared []string
		want     string
	}{
		"nothing": {nil, "0000000000000000"},
		"some":    {[]string{"CAP_CHOWN", "CAP_NET_ADMIN"}, "0000000000001001"},
		"all":     {[]string{"ALL"}, bounding(string(own))},
	} {
		b := newBench(t)
		b.install(binary(t, "odd"), Volume, "odd", map[string]any{"capabilities": c.declared})
		h := b.start()
		v, err := mustVolume(t, h, "odd").Get(t.Context(), "capabilities")
		if err != nil {
			t.Fatal(err)
		}
		status := v.Status["status"]
		if effective := regexp.MustCompile(`CapEff:\s+(\w+)`).FindStringSubmatch(status)[1]; effective != c.want || bounding(status) != c.want {
			t.Errorf("%s: has %s of %s, want %s", name, effective, bounding(status), c.want)
		}
	}
	if now, err := os.ReadFile("/proc/self/status"); err != nil || bounding(string(now)) != bounding(string(own)) {
		t.Errorf("the engine itself has lost capabilities: %s, %v", now, err)
	}
}

func TestUnknownCapabilities(t *testing.T) {
	_, err := ParseManifest([]byte(`{"name": "volume-x", "kind": "volume", "driver": "x", "protocol": 1, "capabilities": ["NET_ADMIN"]}`))
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `capability "NET_ADMIN" is neither one of Linux`) {
		t.Errorf("%v", err)
	}
}
