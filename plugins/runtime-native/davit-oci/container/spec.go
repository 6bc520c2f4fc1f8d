package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/placement"
	"github.com/davit-engine/davit/plugins/runtime-native/systemd"
)

// document is a spec without what other systems than Linux read of it. Package
// json prepares itself for every type that it may meet in a structure before it
// reads the first, which takes longer than the reading.
type document struct {
	*specs.Spec
	Solaris json.RawMessage `json:"solaris"`
	Windows json.RawMessage `json:"windows"`
	VM      json.RawMessage `json:"vm"`
	ZOS     json.RawMessage `json:"zos"`
	FreeBSD json.RawMessage `json:"freebsd"`
}

// loadSpec reads a bundle's configuration.
func loadSpec(bundle string) (*specs.Spec, error) {
	name := filepath.Join(bundle, "config.json")
	body, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("JSON specification file config.json not found")
	}
	if err != nil {
		return nil, err
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(body, &document{Spec: spec}); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return spec, validate(spec)
}

// validate refuses what every later step relies on.
func validate(spec *specs.Spec) error {
	if !strings.HasPrefix(spec.Version, "1.") && spec.Version != "1" {
		return fmt.Errorf("ociVersion %q is none of runtime-spec 1.x", spec.Version)
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return errors.New("root filesystem path must not be empty")
	}
	if spec.Process == nil {
		return errors.New("process property must not be empty")
	}
	if spec.Linux == nil {
		return errors.New("linux property must not be empty")
	}
	return validateProcess(spec.Process)
}

func validateProcess(p *specs.Process) error {
	if p.Cwd == "" {
		return errors.New("Cwd property must not be empty")
	}
	if !filepath.IsAbs(p.Cwd) {
		return errors.New("Cwd must be an absolute path")
	}
	if len(p.Args) == 0 {
		return errors.New("args must not be empty")
	}
	return nil
}

// rootfs is the absolute path of the bundle's root filesystem without links.
func rootfs(spec *specs.Spec, bundle string) (string, error) {
	dir := spec.Root.Path
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(bundle, dir)
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("invalid rootfs: %w", err)
	}
	info, err := os.Stat(resolved)
	if err == nil && !info.IsDir() {
		return "", fmt.Errorf("invalid rootfs: %s is not a directory", resolved)
	}
	return resolved, err
}

// place is where the container's cgroup will be. A relative path starts at the
// hierarchies' roots.
func (r *Runtime) place(spec *specs.Spec, id string) (placement.Placement, error) {
	name := spec.Linux.CgroupsPath
	if r.Systemd {
		scope, err := systemd.Parse(name, id)
		if err != nil {
			return placement.Placement{}, err
		}
		return placement.InScope(scope), nil
	}
	if systemd.IsCgroupsPath(name) {
		return placement.Placement{}, fmt.Errorf("cgroupsPath %q is systemd's: run with --systemd-cgroup", name)
	}
	if name == "" {
		name = id
	}
	name = path.Clean("/" + name)
	if name == "/" {
		return placement.Placement{}, errors.New("cgroupsPath is the root cgroup")
	}
	return placement.Placement{Cgroup: name}, nil
}

// resources are the limits of a spec with what every container may do.
func resources(spec *specs.Spec) *specs.LinuxResources {
	limits := specs.LinuxResources{}
	if spec.Linux.Resources != nil {
		limits = *spec.Linux.Resources
	}
	if len(limits.Devices) > 0 {
		limits.Devices = append(slices.Clone(limits.Devices), cgroup.DefaultDevices()...)
	}
	return &limits
}
