package translate

import (
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// Hooks translates a spec's hooks for a container; nil if it has none.
func Hooks(spec *specs.Spec, id, bundle string) (*hook.Set, error) {
	if spec.Hooks == nil {
		return nil, nil
	}
	h := spec.Hooks
	set := &hook.Set{State: hook.State{Version: spec.Version, ID: id, Bundle: bundle, Annotations: spec.Annotations}}
	count := 0
	for _, point := range []struct {
		name string
		from []specs.Hook
		to   *[]hook.Hook
	}{
		{"prestart", h.Prestart, &set.Prestart}, //nolint:staticcheck // deprecated, and still what callers set
		{"createRuntime", h.CreateRuntime, &set.CreateRuntime},
		{"createContainer", h.CreateContainer, &set.CreateContainer},
		{"startContainer", h.StartContainer, &set.StartContainer},
		{"poststart", h.Poststart, &set.Poststart},
		{"poststop", h.Poststop, &set.Poststop},
	} {
		for i, from := range point.from {
			to := hook.Hook{Path: from.Path, Args: from.Args, Env: from.Env}
			if !path.IsAbs(from.Path) {
				return nil, invalid("hooks.%s[%d].path %q is not absolute", point.name, i, from.Path)
			}
			if from.Timeout != nil {
				if *from.Timeout <= 0 {
					return nil, invalid("hooks.%s[%d].timeout %d is not above 0", point.name, i, *from.Timeout)
				}
				to.Timeout = *from.Timeout
			}
			*point.to = append(*point.to, to)
			count++
		}
	}
	if count == 0 {
		return nil, nil
	}
	return set, nil
}
