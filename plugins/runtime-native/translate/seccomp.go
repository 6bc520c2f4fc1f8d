package translate

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/seccomp"
	"github.com/davit-engine/davit/sdk/monitor/launch"
)

// Listener is the agent of a seccomp section that notifies, nil if it has none.
func Listener(spec *specs.Spec, id, bundle string) *launch.Listener {
	section := spec.Linux.Seccomp
	if section == nil || !seccomp.Notifies(section) {
		return nil
	}
	return &launch.Listener{Path: section.ListenerPath, Metadata: section.ListenerMetadata, State: launch.State{
		Version: specs.Version, ID: id, Status: string(specs.StateCreated), Bundle: bundle, Annotations: spec.Annotations,
	}}
}
