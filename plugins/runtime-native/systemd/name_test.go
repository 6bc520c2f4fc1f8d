package systemd

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParse(t *testing.T) {
	for path, want := range map[string]Scope{
		"":                                    {"davit-box.scope", "system.slice"},
		"machine.slice:libpod:abc":            {"libpod-abc.scope", "machine.slice"},
		":docker:abc":                         {"docker-abc.scope", "system.slice"},
		"kubepods-besteffort.slice:cri:a_b.c": {"cri-a_b.c.scope", "kubepods-besteffort.slice"},
		"-.slice:p:n":                         {"p-n.scope", "-.slice"},
	} {
		if got, err := Parse(path, "box"); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", path, got, err, want)
		}
	}
	for path, text := range map[string]string{
		"/davit/abc":             `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/davit/abc" instead`,
		"a:b":                    "expected cgroupsPath",
		"a.slice:b:c:d":          "expected cgroupsPath",
		"system:b:c":             "invalid slice name: system",
		"a--b.slice:b:c":         "invalid slice name: a--b.slice",
		"-a.slice:b:c":           "invalid slice name: -a.slice",
		"a-.slice:b:c":           "invalid slice name: a-.slice",
		".slice:b:c":             "invalid slice name: .slice",
		"a b.slice:b:c":          "invalid slice name: a b.slice",
		"system.slice:b:":        "names no scope",
		"system.slice:b:c.slice": "names no scope",
		"system.slice:b:c d":     `has the character ' '`,
		"system.slice:b:" + strings.Repeat("c", 300): "longer than 255",
	} {
		if got, err := Parse(path, "box"); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %+v, %v; want %q", path, got, err, text)
		}
	}
}

func TestPath(t *testing.T) {
	for slice, want := range map[string]string{
		"system.slice":     "/system.slice/x.scope",
		"a-b-c.slice":      "/a.slice/a-b.slice/a-b-c.slice/x.scope",
		"-.slice":          "/x.scope",
		"machine_1.slice":  "/machine_1.slice/x.scope",
		`a\x2db-c.slice`:   `/a\x2db.slice/a\x2db-c.slice/x.scope`,
		"user-1000.slice":  "/user.slice/user-1000.slice/x.scope",
		"kube.pods.slice":  "/kube.pods.slice/x.scope",
		"system-get.slice": "/system.slice/system-get.slice/x.scope",
	} {
		if got := (Scope{Name: "x.scope", Slice: slice}).Path(); got != want {
			t.Errorf("%s: %s, want %s", slice, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "a.slice:b:c", "::", "-.slice:-:x", "a-b.slice::x", "../../x.slice:a:b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		scope, err := Parse(path, "id")
		if err != nil {
			return
		}
		dir := scope.Path()
		if !strings.HasPrefix(dir, "/") || strings.Contains(dir, "//") || strings.Contains(dir, "/../") || !strings.HasSuffix(dir, ".scope") {
			t.Errorf("%q is the cgroup %q", path, dir)
		}
	})
}
