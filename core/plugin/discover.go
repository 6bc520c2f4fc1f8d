package plugin

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// found is a plugin's place on disk, named by its executable.
type found struct {
	kind   Kind
	driver string
	dir    string
	path   string
}

func (f found) name() string     { return string(f.kind) + "-" + f.driver }
func (f found) manifest() string { return f.path + ".json" }

// discover lists the executables davit-<kind>-<driver> of the directories. What
// is wrong with one of them is found out at its launch, so that it is shown.
func discover(dirs []string) ([]found, error) {
	var plugins []found
	seen := make(map[string]bool)
	var problems []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("reading plugin directory: %w", err))
			continue
		}
		for _, entry := range entries {
			rest, ok := strings.CutPrefix(entry.Name(), "davit-")
			if !ok || strings.HasSuffix(rest, ".json") || entry.IsDir() {
				continue
			}
			kind, driver, ok := strings.Cut(rest, "-")
			if _, known := kinds()[Kind(kind)]; !ok || !known || driver == "" || seen[rest] {
				continue
			}
			seen[rest] = true
			plugins = append(plugins, found{
				kind: Kind(kind), driver: driver, dir: dir, path: filepath.Join(dir, entry.Name()),
			})
		}
	}
	return plugins, errors.Join(problems...)
}

// readManifest reads a plugin's manifest, if only root can have put it there.
func readManifest(f found) (Manifest, error) {
	for _, path := range []string{f.dir, f.path, f.manifest()} {
		if err := trusted(path); err != nil {
			return Manifest{}, err
		}
	}
	data, err := os.ReadFile(f.manifest())
	if err != nil {
		return Manifest{}, fmt.Errorf("reading manifest: %w", err)
	}
	m, err := ParseManifest(data)
	if err != nil {
		return Manifest{}, fmt.Errorf("manifest %s: %w", f.manifest(), err)
	}
	if m.Name != f.name() {
		return Manifest{}, fmt.Errorf("manifest %s is for %s, not for %s: %w",
			f.manifest(), m.Name, f.name(), errdefs.ErrInvalidArgument)
	}
	return m, nil
}

// inspect reads a plugin's manifest and checks everything that must hold before
// its executable may run. It answers the executable's digest.
func inspect(f found) (Manifest, string, error) {
	m, err := readManifest(f)
	if err != nil {
		return Manifest{}, "", err
	}
	sum, err := digest(f.path)
	if err != nil {
		return Manifest{}, "", err
	}
	if m.SHA256 != "" && !strings.EqualFold(m.SHA256, sum) {
		return Manifest{}, "", fmt.Errorf("%s has sha256 %s, but its manifest says %s: %w",
			f.path, sum, m.SHA256, errdefs.ErrPermissionDenied)
	}
	return m, sum, nil
}

// trusted says whether only root can have put there what is at path.
func trusted(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("checking plugin: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
		return fmt.Errorf("%s belongs to user %d, so that others than root decide what the engine runs: chown root %s: %w",
			path, st.Uid, path, errdefs.ErrPermissionDenied)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s (mode %04o) can be written by others than root: chmod go-w %s: %w",
			path, mode, path, errdefs.ErrPermissionDenied)
	}
	return nil
}

func digest(path string) (_ string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading plugin: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return "", fmt.Errorf("reading plugin: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// fingerprint changes when anything changes that inspect looks at.
func fingerprint(f found) string {
	var b strings.Builder
	for _, path := range []string{f.dir, f.path, f.manifest()} {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%v;", err)
			continue
		}
		st, _ := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%d %d %d %o %d;", st.Ino, info.ModTime().UnixNano(), info.Size(), info.Mode(), st.Uid)
	}
	return b.String()
}
