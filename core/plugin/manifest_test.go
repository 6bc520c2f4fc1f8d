package plugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

const goodManifest = `{
  "name": "network-odd", "kind": "network", "driver": "odd", "version": "1.0", "protocol": 1,
  "services": ["davit.network.v1.Network"], "capabilities": ["CAP_NET_ADMIN"],
  "config": {
    "bridge": {"type": "string", "default": "br0", "description": "name of the bridge"},
    "mtu": {"type": "int"},
    "pools": {"type": "list", "required": true, "description": "address pools"},
    "quota": {"type": "size", "default": "1m"},
    "grace": {"type": "duration", "default": "90s"},
    "on": {"type": "bool", "default": true}
  }
}`

func TestManifestMistakesAreNamed(t *testing.T) {
	if _, err := ParseManifest([]byte(goodManifest)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"kind": "network"`, `"kind": "toaster"`, `kind "toaster" is none of network, runtime, storage, volume`},
		{`"name": "network-odd"`, `"name": "odd"`, `name "odd" must be "network-odd"`},
		{`"driver": "odd"`, `"driver": "../odd"`, `driver "../odd"`},
		{`"protocol": 1`, `"protocol": 2`, `protocol version 2, this engine version 1`},
		{`"davit.network.v1.Network"`, `"davit.volume.v1.Volume"`, `do not contain davit.network.v1.Network`},
		{`"version"`, `"sha256": "123", "version"`, `sha256 "123"`},
		{`"type": "int"`, `"type": "float"`, `config key "mtu": type "float"`},
		{`"default": "90s"`, `"default": 90`, `config key "grace": default: 90`},
		{`"default": "1m"`, `"default": "1x"`, `config key "quota"`},
		{`"version"`, `"vresion"`, `vresion`},
		{`{`, ``, ``},
	} {
		_, err := ParseManifest([]byte(strings.Replace(goodManifest, c.old, c.new, 1)))
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", c.new, err)
		}
	}
}

func TestConfigurationIsCheckedAgainstTheManifest(t *testing.T) {
	m, err := ParseManifest([]byte(goodManifest))
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Settings(map[string]any{"pools": []any{"10.0.0.0/8"}, "mtu": int64(1400), "quota": int64(5)})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"bridge": "br0", "mtu": int64(1400), "pools": []any{"10.0.0.0/8"}, "quota": int64(5), "grace": "1m30s", "on": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for key, value := range map[string]any{
		"bridge": 5, "mtu": "big", "pools": []any{1}, "quota": "-", "grace": "soon", "on": "yes",
	} {
		user := map[string]any{"pools": []any{}}
		user[key] = value
		if _, err := m.Settings(user); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `key "`+key+`"`) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := m.Settings(nil); err == nil || !strings.Contains(err.Error(), `"pools" is required (address pools)`) {
		t.Errorf("required: %v", err)
	}
}

// TestManifestsOfThisRepository keeps the shipped manifests readable.
func TestManifestsOfThisRepository(t *testing.T) {
	var paths []string
	for _, pattern := range []string{"../../plugins/*/davit-*.json", "../../examples/*/davit-*.json"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := ParseManifest(data)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		} else if filepath.Base(path) != "davit-"+m.Name+".json" {
			t.Errorf("%s is the manifest of %s", path, m.Name)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		if strings.Contains(m.Driver, "/") {
			t.Errorf("driver %q", m.Driver)
		}
		if _, err := m.Settings(nil); err != nil && !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
	})
}
