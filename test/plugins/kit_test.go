// Package plugins judges the built drivers: with davit's own kit and, for storage,
// with containerd's suite of snapshotters.
package plugins

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/conformance"
	"github.com/davit-engine/davit/sdk/conformance/snapshotter"
	"github.com/davit-engine/davit/sdk/storage/storagegrpc"
	"github.com/davit-engine/davit/test/private"
)

// drivers are those that come with davit, what the kit is told about them and how
// many checks pass at least.
func drivers() []subject {
	return []subject{
		{"storage-overlay", 30, nil},
		{"storage-copy", 30, nil},
		{"volume-local", 30, nil},
		{"network-bridge", 40, nil},
		{"volume-tmpfs", 30, []string{"--option", "size=16m", "--option", "uid=7"}},
		// A tmpfs keeps nothing without a consumer, so only what is about options.
		{"volume-local", 2, []string{"--run", "volume/(other-options|options-are-kept)", "--option", "type=tmpfs", "--option", "device=tmpfs", "--option", "o=size=16m"}},
	}
}

type subject struct {
	name string
	pass int
	args []string
}

func bin(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("drivers mount, which needs root")
	}
	dir, err := private.BinDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// judge runs the kit as its users do and answers the report and the exit code.
func judge(t *testing.T, path string, args ...string) (conformance.Report, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin(t), "davit"), append(append([]string{"plugin", "test", "--json"}, args...), path)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var report conformance.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	return report, cmd.ProcessState.ExitCode()
}

func TestDriversKeepTheContract(t *testing.T) {
	for _, d := range drivers() {
		t.Run(d.name, func(t *testing.T) {
			path := filepath.Join(bin(t), "plugins", "davit-"+d.name)
			junit := filepath.Join(t.TempDir(), "report.xml")
			report, code := judge(t, path, append(d.args, "--junit", junit)...)
			for _, r := range report.Results {
				if r.Outcome == conformance.Fail {
					t.Errorf("%s: %s", r.Name, strings.Join(r.Why, "\n"))
				}
			}
			if code != 0 || report.Plugin != d.name || report.Count(conformance.Pass) < d.pass {
				t.Errorf("exit code %d, report of %s: %d passed", code, report.Plugin, report.Count(conformance.Pass))
			}
			if xml, err := os.ReadFile(junit); err != nil || !bytes.Contains(xml, []byte(`<testsuite name="`+d.name+`"`)) {
				t.Errorf("%v: %s", err, xml)
			}
		})
	}
}

// TestContainerdsSuite lets containerd judge the storage drivers over the wire. The
// names tell the suite what a kind of snapshotter cannot do.
func TestContainerdsSuite(t *testing.T) {
	bin(t)
	// Each of hundreds of commits waits for a disk.
	memory := t.TempDir()
	if err := unix.Mount("tmpfs", memory, "tmpfs", 0, "size=1g"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(memory, 0); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("TMPDIR", memory)
	for name, as := range map[string]string{"storage-overlay": "overlayfs", "storage-copy": "copy"} {
		t.Run(name, func(t *testing.T) {
			o := conformance.Options{Path: filepath.Join(bin(t), "plugins", "davit-"+name), Kind: conformance.Storage}
			testsuite.SnapshotterSuite(t, as, func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
				run, err := os.MkdirTemp("", "run")
				if err != nil {
					return nil, nil, err
				}
				conn, stop, err := conformance.Start(ctx, o, root, run)
				if err != nil {
					return nil, nil, errors.Join(err, os.RemoveAll(run))
				}
				s := snapshotter.New(storagegrpc.NewClient(conn), func() error { stop(); return os.RemoveAll(run) })
				return s, s.Close, nil
			})
		})
	}
}

func TestCommandLine(t *testing.T) {
	overlay := filepath.Join(bin(t), "plugins", "davit-storage-overlay")
	lost := filepath.Join(t.TempDir(), "davit-volume-lost")
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"help":                 {[]string{"--help"}, 0, "Usage:  davit plugin test"},
		"no binary":            {nil, 125, "requires exactly 1 argument"},
		"an unknown flag":      {[]string{"--colour", overlay}, 125, "unknown flag: --colour"},
		"no manifest":          {[]string{lost}, 1, "the manifest beside the plugin"},
		"an unknown setting":   {[]string{"--set", "colour=red", overlay}, 1, `unknown key "colour"`},
		"a list of the checks": {[]string{"--list", overlay}, 0, "storage/prepare-taken"},
		"one check":            {[]string{"--run", "^storage/stat$", overlay}, 0, "keeps the contract: 1 passed, 0 failed, 0 skipped"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), filepath.Join(bin(t), "davit"), append([]string{"plugin", "test"}, c.args...)...)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.want) {
				t.Errorf("exit code %d, not %d, or no %q in: %s", code, c.code, c.want, out)
			}
		})
	}
}

// TestExamplesKeepTheContract builds the examples that authors begin with.
func TestExamplesKeepTheContract(t *testing.T) {
	for name, c := range map[string]struct {
		pass  int
		build func(out string) []string
	}{
		"volume-minimal": {20, func(out string) []string {
			return []string{"sh", "-c", "go build -o " + out + "davit-volume-minimal ../../examples/volume-minimal && cp ../../examples/volume-minimal/davit-volume-minimal.json " + out}
		}},
		"volume-python": {28, func(out string) []string { return []string{"make", "-C", "../../examples/volume-python", "OUT=" + out} }},
		"network-python": {34, func(out string) []string {
			return []string{"make", "-C", "../../examples/network-python", "OUT=" + out}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir() + "/"
			if said, err := exec.CommandContext(t.Context(), c.build(out)[0], c.build(out)[1:]...).CombinedOutput(); err != nil {
				t.Fatal(fmt.Errorf("%w: %s", err, said))
			}
			report, code := judge(t, out+"davit-"+name)
			for _, r := range report.Results {
				if r.Outcome == conformance.Fail {
					t.Errorf("%s: %s", r.Name, strings.Join(r.Why, "\n"))
				}
			}
			if code != 0 || report.Count(conformance.Pass) < c.pass {
				t.Errorf("exit code %d, %d passed", code, report.Count(conformance.Pass))
			}
		})
	}
}
