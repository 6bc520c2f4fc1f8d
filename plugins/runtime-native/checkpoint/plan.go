package checkpoint

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/plugins/runtime-native/translate"
	"github.com/davit-engine/davit/sdk/monitor/criu"
	"github.com/davit-engine/davit/sdk/monitor/restore"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// Restore is a container to be made from a checkpoint.
type Restore struct {
	Program string // CRIU's
	// Images is the checkpoint, Work a directory for CRIU's log, Place an empty
	// directory on which mounts are prepared.
	Images, Work, Place string
	Options             criu.Options
	Terminal            bool
}

// Plan plans the restoration of a checkpoint into the container of a spec and
// its translation. What the checkpoint and the spec do not agree on is an error.
func (r Restore) Plan(spec *specs.Spec, t *translate.Container) (*restore.Plan, error) {
	image, err := Read(r.Images)
	if err != nil {
		return nil, err
	}
	if image.Terminal != r.Terminal {
		return nil, fmt.Errorf("the checkpoint is of a container %s a terminal: %w", map[bool]string{true: "with", false: "without"}[image.Terminal], errdefs.ErrFailedPrecondition)
	}
	if err := Supported(spec); err != nil {
		return nil, err
	}
	container := t.Stage.Container
	p := &restore.Plan{
		Program: r.Program, Images: r.Images, Work: r.Work, Options: r.Options, Streams: image.Pipes,
		Staging:  sandbox.Staging{Propagation: container.Propagation, Rootfs: container.Rootfs, Root: container.Root, Place: r.Place},
		ReadOnly: container.ReadOnly, Keyring: t.Stage.Process.Keyring,
	}
	for _, join := range t.Join {
		if join.Type == unix.CLONE_NEWNET && image.Network {
			p.Namespaces = map[string]string{networkKey: join.Path}
		}
	}
	if image.Network && len(p.Namespaces) == 0 {
		return nil, fmt.Errorf("the checkpoint needs a network namespace to join: %w", errdefs.ErrFailedPrecondition)
	}
	sources := slices.Concat(container.Root[min(1, len(container.Root)):], container.Mounts)
	for _, e := range image.External {
		m, err := source(e, sources, spec.Linux.MaskedPaths)
		if err != nil {
			return nil, err
		}
		p.Staging.External = append(p.Staging.External, m)
	}
	p.Staging.Points = points(image)
	return p, nil
}

// Supported refuses containers that cannot be in a checkpoint.
func Supported(spec *specs.Spec) error {
	for _, n := range spec.Linux.Namespaces {
		switch {
		case n.Type == specs.UserNamespace:
			return fmt.Errorf("containers with a user namespace cannot be checkpointed: %w", errdefs.ErrNotImplemented)
		case n.Path != "" && n.Type != specs.NetworkNamespace:
			return fmt.Errorf("containers that share somebody's %s namespace cannot be checkpointed: %w", n.Type, errdefs.ErrNotImplemented)
		}
	}
	return nil
}

// source is the mount that takes an external one's place: the one that the spec
// has there, or else what the host had.
func source(e External, mounts []sandbox.Mount, masked []string) (sandbox.Mount, error) {
	for _, m := range slices.Backward(mounts) {
		if !m.Link && !m.Remount && m.Target == e.Mountpoint {
			return m, nil
		}
	}
	for _, m := range slices.Backward(mounts) {
		if m.Type != "bind" || !m.Recursive || m.Source == "" {
			continue
		}
		if rest, ok := below(m.Target, e.Mountpoint); ok {
			m.Target, m.Subdir = e.Mountpoint, filepath.Join(m.Subdir, rest)
			return m, nil
		}
	}
	bind := sandbox.Mount{Type: "bind", Source: e.Source, Target: e.Mountpoint}
	if slices.Contains(masked, e.Mountpoint) {
		bind.Source = "/dev/null"
	}
	if bind.Source == "" {
		return bind, fmt.Errorf("the checkpoint has a mount of the host's on %s, which the container has not: %w", e.Mountpoint, errdefs.ErrFailedPrecondition)
	}
	return bind, nil
}

// points are the mount points that are in the root filesystem and not in a mount.
func points(image *Image) []sandbox.Point {
	var found []sandbox.Point
	for i, p := range image.Points {
		inside := slices.ContainsFunc(image.Points[:i], func(other Point) bool {
			_, ok := below(other.Path, p.Path)
			return ok
		})
		if !inside {
			found = append(found, sandbox.Point{Path: p.Path, File: p.File})
		}
	}
	return found
}
