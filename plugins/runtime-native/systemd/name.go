// Package systemd asks systemd for transient scope units, one for a container, over
// D-Bus (org.freedesktop.systemd1(5)). Such a unit's cgroup is delegated: systemd
// makes it, removes it, and otherwise leaves it to its owner, but for the limits it
// is told of. Nothing is kept between two calls.
package systemd

import (
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// SystemSlice is the slice of what names none.
const SystemSlice = "system.slice"

// defaultPrefix is the first part of the names of units whose spec names none.
const defaultPrefix = "davit"

// Scope is the name of a scope unit and the slice it is in.
type Scope struct{ Name, Slice string }

// IsCgroupsPath says whether the linux.cgroupsPath of a spec is in systemd's form,
// "slice:prefix:name".
func IsCgroupsPath(cgroupsPath string) bool {
	return strings.Count(cgroupsPath, ":") == 2 && !strings.Contains(cgroupsPath, "/")
}

// Parse reads the linux.cgroupsPath of a spec. An empty one, and an empty slice,
// stand for the defaults: the scope davit-<id>.scope in system.slice.
func Parse(cgroupsPath, id string) (Scope, error) {
	if cgroupsPath == "" {
		cgroupsPath = strings.Join([]string{SystemSlice, defaultPrefix, id}, ":")
	}
	if !IsCgroupsPath(cgroupsPath) {
		return Scope{}, invalid("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", cgroupsPath)
	}
	parts := strings.Split(cgroupsPath, ":")
	if parts[0] == "" {
		parts[0] = SystemSlice
	}
	if _, err := slicePath(parts[0]); err != nil {
		return Scope{}, err
	}
	if parts[2] == "" || strings.HasSuffix(parts[2], ".slice") {
		return Scope{}, invalid("cgroupsPath %q names no scope", cgroupsPath)
	}
	scope := Scope{Name: parts[1] + "-" + parts[2] + ".scope", Slice: parts[0]}
	for _, c := range []byte(scope.Name) {
		if !validInName(c) {
			return Scope{}, invalid("unit name %q of cgroupsPath %q has the character %q", scope.Name, cgroupsPath, c)
		}
	}
	if len(scope.Name) > 255 {
		return Scope{}, invalid("unit name %q is longer than 255 characters", scope.Name)
	}
	return scope, nil
}

// validInName is systemd.unit(5)'s rule for names.
func validInName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(`:-_.\`, c) >= 0
}

// Path is the scope's cgroup, below each hierarchy.
func (s Scope) Path() string {
	dir, _ := slicePath(s.Slice)
	return path.Join(dir, s.Name)
}

// CheckSlice answers nil for the name of a slice, as in Docker's --cgroup-parent.
func CheckSlice(name string) error {
	_, err := slicePath(name)
	return err
}

// slicePath is the cgroup of a slice: each dash in its name is a level
// (systemd.slice(5)).
func slicePath(name string) (string, error) {
	stem, ok := strings.CutSuffix(name, ".slice")
	if stem == "-" && ok {
		return "/", nil
	}
	if !ok || stem == "" || strings.HasPrefix(stem, "-") || strings.HasSuffix(stem, "-") || strings.Contains(stem, "--") || len(name) > 255 {
		return "", invalid("invalid slice name: %s", name)
	}
	dir := "/"
	for i := range len(stem) {
		if !validInName(stem[i]) {
			return "", invalid("invalid slice name: %s", name)
		}
		if stem[i] == '-' {
			dir += stem[:i] + ".slice/"
		}
	}
	return dir + name, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}
