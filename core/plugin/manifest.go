package plugin

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/capability"

	sdk "github.com/davit-engine/davit/sdk/plugin"
)

// Manifest is the JSON file beside a plugin's executable.
type Manifest struct {
	Name         string         `json:"name"` // "<kind>-<driver>"
	Kind         Kind           `json:"kind"`
	Driver       string         `json:"driver"`
	Version      string         `json:"version"`
	Protocol     int            `json:"protocol"`
	Services     []string       `json:"services"`
	SHA256       string         `json:"sha256"`       // of the executable; empty: not checked
	Capabilities []string       `json:"capabilities"` // Linux capabilities it has, or ALL; without any it has none
	OnDemand     bool           `json:"on_demand"`    // started when it is first called; see supervised
	Config       map[string]Key `json:"config"`       // schema of its settings

	bounds []capability.Cap // the same capabilities; nil for all
}

// kinds are the kinds of drivers and the service that each must serve.
func kinds() map[Kind]string {
	return map[Kind]string{
		Storage: "davit.storage.v1.Storage",
		Network: "davit.network.v1.Network",
		Runtime: "davit.runtime.v1.Runtime",
		Volume:  "davit.volume.v1.Volume",
	}
}

// ParseManifest reads a manifest and checks what can be checked without the
// executable.
func ParseManifest(data []byte) (Manifest, error) {
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if dec.More() {
		return Manifest{}, fmt.Errorf("text after the manifest's object: %w", errdefs.ErrInvalidArgument)
	}
	if err := m.check(); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return m, nil
}

func (m *Manifest) check() error {
	service, ok := kinds()[m.Kind]
	if !ok {
		return fmt.Errorf("kind %q is none of %s", m.Kind, known(kinds()))
	}
	if m.Driver == "" || strings.ContainsAny(m.Driver, "/ \x00") {
		return fmt.Errorf("driver %q is not a driver's name", m.Driver)
	}
	if want := string(m.Kind) + "-" + m.Driver; m.Name != want {
		return fmt.Errorf("name %q must be %q", m.Name, want)
	}
	if m.Protocol != sdk.ProtocolVersion {
		return fmt.Errorf("plugin %s speaks protocol version %d, this engine version %d: install the plugin made for this engine",
			m.Name, m.Protocol, sdk.ProtocolVersion)
	}
	if len(m.Services) > 0 && !slices.Contains(m.Services, service) {
		return fmt.Errorf("services %v do not contain %s", m.Services, service)
	}
	if sum, err := hex.DecodeString(m.SHA256); err != nil || (len(sum) != 0 && len(sum) != 32) {
		return fmt.Errorf("sha256 %q is not 64 hexadecimal digits", m.SHA256)
	}
	var err error
	if m.bounds, err = bounds(m.Capabilities); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m.Config)) {
		key := m.Config[name]
		if !key.Type.valid() {
			return fmt.Errorf("config key %q: type %q is none of string, int, bool, list, duration, size", name, key.Type)
		}
		if key.Default != nil {
			if _, err := key.Type.value(key.Default); err != nil {
				return fmt.Errorf("config key %q: default: %w", name, err)
			}
		}
	}
	return nil
}

// known lists the names of a map for a message.
func known[K ~string, V any](m map[K]V) string {
	if len(m) == 0 {
		return "none"
	}
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
