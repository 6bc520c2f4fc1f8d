package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestTheKitNoticesWhatIsWrong has a driver judged that keeps the contract but for
// one thing.
func TestTheKitNoticesWhatIsWrong(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the kit mounts volumes, which needs root")
	}
	path := filepath.Join(t.TempDir(), "davit-volume-wrong")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, "./testdata/wrong").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for fault, want := range map[string]string{
		"":                         "",
		"any name":                 "volume/names",
		"any option":               "volume/unknown-option",
		"option without name":      "volume/unknown-option",
		"create once":              "volume/create-again",
		"always fresh":             "volume/fresh",
		"unknown is internal":      "volume/unknown",
		"twice in the list":        "volume/list",
		"removes what is in use":   "volume/remove-in-use",
		"leaves a file":            "plugin/leaves-nothing",
		"leaves a process":         "plugin/leaves-nothing",
		"another place each time":  "volume/mount-again",
		"a mount that cannot be":   "volume/mount",
		"a mount of the host's":    "volume/mount",
		"unmounts known ones only": "volume/unmount-unknown",
		"drops too little":         "volume/reconcile",
		"drops too much":           "volume/reconcile",
		"hangs at the end":         "plugin/shutdown",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			report, err := Run(t.Context(), Options{Path: path, Kind: Volume, Name: "volume-wrong", Config: map[string]any{"fault": fault}})
			if err != nil {
				t.Fatal(err)
			}
			var failed []string
			for _, r := range report.Results {
				if r.Outcome == Fail {
					failed = append(failed, r.Name)
				}
			}
			if want == "" && len(failed) > 0 || want != "" && !slices.Contains(failed, want) {
				t.Errorf("failed: %v, and should have failed: %q", failed, want)
			}
		})
	}
}

// TestWhatIsNoPlugin is not judged at all.
func TestWhatIsNoPlugin(t *testing.T) {
	for _, o := range []Options{
		{Path: "/bin/true", Kind: Volume}, {Path: "/bin/echo", Kind: Volume}, {Path: "/no/where", Kind: Storage}, {Path: "/bin/true", Kind: "odd"},
	} {
		if report, err := Run(t.Context(), o); err == nil || report != nil {
			t.Errorf("%+v: %+v, %v", o, report, err)
		}
	}
}
