// Package scaffold writes the beginning of a driver: one that builds and keeps the
// mandatory part of the contract, for its author to change.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/proto"
	"github.com/davit-engine/davit/sdk/python"
)

// Driver says what is to be written.
type Driver struct {
	Kind string // storage, network, runtime or volume
	Name string // of the driver: the plugin is called davit-<kind>-<name>
	Lang string // go or python
	// Version is davit's, such as v1.2.3, for a Go module to require; empty: the latest
	// one.
	Version string
}

//go:embed templates
var templates embed.FS

var (
	validName    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)
	validVersion = regexp.MustCompile(`^v\d+\.\d+\.\d+$`)
)

// Plugin is the name of the plugin's executable.
func (d Driver) Plugin() string { return "davit-" + d.Kind + "-" + d.Name }

// Files are the driver's files by their paths. ErrInvalidArgument says what is wrong
// with what was asked for, ErrNotImplemented that there is no template of it.
func (d Driver) Files() (map[string][]byte, error) {
	if kinds := []string{"storage", "network", "runtime", "volume"}; !slices.Contains(kinds, d.Kind) {
		return nil, fmt.Errorf("kind %q is none of %s: %w", d.Kind, strings.Join(kinds, ", "), errdefs.ErrInvalidArgument)
	}
	if !validName.MatchString(d.Name) {
		return nil, fmt.Errorf("%q cannot be a driver's name: it has small letters, digits and hyphens, and at most 31 of them: %w", d.Name, errdefs.ErrInvalidArgument)
	}
	if langs := []string{"go", "python"}; !slices.Contains(langs, d.Lang) {
		return nil, fmt.Errorf("language %q is none of %s; in any other the protos and docs/plugin-protocol.md say all that is needed: %w", d.Lang, strings.Join(langs, ", "), errdefs.ErrInvalidArgument)
	}
	source, main := path.Join("templates", d.Lang, d.Kind), "main.go"
	if d.Lang == "python" {
		main = d.Plugin()
	}
	body, err := templates.ReadFile(source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no beginning of a %s driver in %s, but one in Go: %w", d.Kind, d.Lang, errdefs.ErrNotImplemented)
	}
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{main: d.fill(body)}
	for target, source := range map[string]string{
		d.Plugin() + ".json": path.Join("templates", d.Kind+".json"),
		"Makefile":           path.Join("templates", d.Lang, "Makefile"),
		"README.md":          path.Join("templates", d.Lang, "README.md"),
	} {
		if body, err = templates.ReadFile(source); err != nil {
			return nil, err
		}
		files[target] = d.fill(body)
	}
	if d.Lang == "go" {
		files["go.mod"] = d.module()
		return files, nil
	}
	return files, errors.Join(add(files, "proto", proto.Files), d.modules(files))
}

// modules adds the Python modules that a driver uses: those of every driver, and the
// books of its kind if there are any.
func (d Driver) modules(files map[string][]byte) error {
	for _, name := range []string{"davit_plugin.py", "davit_" + d.Kind + ".py"} {
		body, err := python.Files.ReadFile(name)
		if err == nil {
			files[path.Join("python", name)] = body
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// fill gives a template the driver's names.
func (d Driver) fill(body []byte) []byte {
	return []byte(strings.NewReplacer("@KIND@", d.Kind, "@NAME@", d.Name).Replace(string(body)))
}

func (d Driver) module() []byte {
	body := "module " + d.Plugin() + "\n\ngo 1.26\n"
	if validVersion.MatchString(d.Version) {
		body += "\nrequire github.com/davit-engine/davit " + d.Version + "\n"
	}
	return []byte(body)
}

// add adds the files of a tree below a directory.
func add(files map[string][]byte, dir string, tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files[path.Join(dir, name)], err = fs.ReadFile(tree, name)
		return err
	})
}

// Write writes the driver's files to a directory, which is made if it is not there;
// ErrAlreadyExists if there is something in it. After an error nothing of it is left.
func (d Driver) Write(dir string) (err error) {
	files, err := d.Files()
	if err != nil {
		return err
	}
	made := true
	if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
		made = false
		left, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("%s is not empty: %w", dir, errdefs.ErrAlreadyExists)
		}
	} else if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		for name := range files {
			top, _, _ := strings.Cut(name, "/")
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, top)))
		}
		if made {
			err = errors.Join(err, os.Remove(dir))
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		target, mode := filepath.Join(dir, name), fs.FileMode(0o644)
		if name == d.Plugin() {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, files[name], mode); err != nil {
			return err
		}
	}
	return nil
}
