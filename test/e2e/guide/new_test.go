// Package guide does what the guide for authors of plugins tells them to do.
package guide

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/davit-engine/davit/test/private"
)

// workshop is where an author works: a directory, with the davit of this repository.
type workshop struct {
	*testing.T
	dir, bin, repository string
}

func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("drivers mount, which needs root")
	}
	bin, err := private.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	repository := filepath.Dir(bin)
	if _, err := os.Stat(filepath.Join(repository, "go.mod")); errors.Is(err, os.ErrNotExist) {
		t.Skip("the sources are not here: this is another machine than they were built on")
	}
	return &workshop{t, t.TempDir(), bin, repository}
}

// sh runs a command line as the author does, without a network.
func (w *workshop) sh(line string) string {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), "sh", "-ec", line)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "PATH="+w.bin+":"+os.Getenv("PATH"), "GOFLAGS=-mod=mod -buildvcs=false", "GOPROXY=off", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

// local has a Go module use the sources of this repository instead of those that the
// author would fetch.
func (w *workshop) local(dir string) {
	w.Helper()
	w.sh("cd " + dir + " && go mod edit -require=github.com/davit-engine/davit@v0.0.0 -replace=github.com/davit-engine/davit=" + w.repository +
		" && cp " + filepath.Join(w.repository, "go.sum") + " .")
}

var verdict = regexp.MustCompile(`keeps the contract: (\d+) passed, 0 failed`)

// passed reads how many checks a driver passed.
func (w *workshop) passed(report string, least int) {
	w.Helper()
	found := verdict.FindStringSubmatch(report)
	if found == nil {
		w.Fatalf("no verdict in %s", report)
	}
	if n, err := strconv.Atoi(found[1]); err != nil || n < least {
		w.Errorf("%d passed, and %d should at least: %s", n, least, report)
	}
}

// TestNewDriversKeepTheContract has `davit plugin new` write drivers, builds them as
// their Makefiles say, and judges them. Volume drivers are those of the examples, as is
// the network driver in Python.
func TestNewDriversKeepTheContract(t *testing.T) {
	for _, c := range []struct {
		kind, lang string
		pass       int
		args       string
	}{
		{"storage", "go", 33, ""}, {"storage", "python", 33, ""}, {"network", "go", 34, ""}, {"runtime", "go", 8, "--set monitor=$PWD/../davit-monitor"},
	} {
		t.Run(c.kind+" in "+c.lang, func(t *testing.T) {
			t.Parallel()
			w := newWorkshop(t)
			w.sh("davit plugin new --kind " + c.kind + " --lang " + c.lang + " --name tried")
			dir := "davit-" + c.kind + "-tried"
			if c.lang == "go" {
				w.local(dir)
				if out := w.sh("gofmt -l " + dir); out != "" {
					t.Errorf("not in gofmt's form: %s", out)
				}
			}
			w.sh("cp " + w.bin + "/davit-monitor . && make -C " + dir)
			w.passed(w.sh("cd "+dir+" && davit plugin test "+c.args+" build/"+dir), c.pass)
		})
	}
}
