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

// cgroupPath is the container's cgroup below each hierarchy's root. A relative
// path starts there, too.
func (r *Runtime) cgroupPath(spec *specs.Spec, id string) (string, error) {
	name := spec.Linux.CgroupsPath
	if r.Systemd {
		return "", errors.New("systemd cgroups are not supported yet: run without --systemd-cgroup")
	}
	if strings.Count(name, ":") == 2 && !strings.Contains(name, "/") {
		return "", fmt.Errorf("cgroupsPath %q is systemd's: run with --systemd-cgroup", name)
	}
	if name == "" {
		name = id
	}
	name = path.Clean("/" + name)
	if name == "/" {
		return "", errors.New("cgroupsPath is the root cgroup")
	}
	return name, nil
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
