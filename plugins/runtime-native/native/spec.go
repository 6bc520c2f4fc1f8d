package native

import (
	"encoding/json"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/seccomp"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// readSpec reads an OCI spec. Its seccomp section is most of the document, and the
// same for nearly all containers: one that was seen before is not read again.
func (d *Driver) readSpec(body []byte) (*specs.Spec, *sandbox.Seccomp, error) {
	type linux struct {
		specs.Linux
		Seccomp json.RawMessage `json:"seccomp"` // in place of the embedded one
	}
	var document struct {
		specs.Spec
		Linux *linux `json:"linux"`
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, nil, fmt.Errorf("reading the OCI spec: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	spec := &document.Spec
	if document.Linux == nil {
		return spec, nil, nil
	}
	spec.Linux = &document.Linux.Linux
	profile, err := d.profiles.get(document.Linux.Seccomp)
	if err != nil {
		return nil, nil, err
	}
	spec.Linux.Seccomp = profile.section
	return spec, profile.filter, nil
}

// profile is a seccomp section, read and compiled. Both are shared and not
// changed.
type profile struct {
	section *specs.LinuxSeccomp
	filter  *sandbox.Seccomp
}

// mostProfiles is how many are kept. There are few: the engine's default, and
// those that users name.
const mostProfiles = 64

// profiles are by the section as JSON.
type profiles struct {
	mu    sync.Mutex
	known map[string]profile
}

// get answers the profile of a section; without one it is empty.
func (p *profiles) get(section json.RawMessage) (profile, error) {
	if len(section) == 0 || string(section) == "null" {
		return profile{}, nil
	}
	p.mu.Lock()
	found, ok := p.known[string(section)]
	p.mu.Unlock()
	if ok {
		return found, nil
	}
	made := profile{section: &specs.LinuxSeccomp{}}
	if err := json.Unmarshal(section, made.section); err != nil {
		return profile{}, fmt.Errorf("reading linux.seccomp of the OCI spec: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	program, flags, err := seccomp.Compile(made.section)
	if err != nil {
		return profile{}, fmt.Errorf("compiling the seccomp profile: %w", err)
	}
	made.filter = &sandbox.Seccomp{Program: program, Flags: flags, Notify: seccomp.Notifies(made.section)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= mostProfiles || p.known == nil {
		p.known = map[string]profile{}
	}
	p.known[string(section)] = made
	return made, nil
}
