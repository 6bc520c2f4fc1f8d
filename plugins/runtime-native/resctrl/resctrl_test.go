package resctrl

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// class runs New and Make on an ordinary directory, which keeps the last line
// written to a file, as resctrl does not: what is checked is what is written.
func class(t *testing.T, root string, rdt *specs.LinuxIntelRdt) (*Class, error) {
	t.Helper()
	c, err := New(root, "box", rdt)
	if err != nil {
		return nil, err
	}
	return c, c.Make(rdt)
}

func read(t *testing.T, path string) string {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}

func TestAClassOfItsOwn(t *testing.T) {
	root := t.TempDir()
	c, err := class(t, root, &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=20", Schemata: []string{"L2:0=f"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Dir != filepath.Join(root, "box") || !c.Own {
		t.Errorf("got %+v", c)
	}
	if got := read(t, filepath.Join(c.Dir, "schemata")); got != "L2:0=f" {
		t.Errorf("the last schema is %q", got)
	}
	if err := c.Join(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if _, err := strconv.Atoi(read(t, filepath.Join(c.Dir, "tasks"))); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"schemata", "tasks"} { // the kernel's own, on a real one
		if err := os.Remove(filepath.Join(c.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
		t.Errorf("the class is left: %v", err)
	}
}

func TestASharedClass(t *testing.T) {
	root := t.TempDir()
	shared := filepath.Join(root, "gold")
	if err := os.MkdirAll(filepath.Join(shared, "mon_groups"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shared, "schemata"), []byte("    L3:0=00f;1=7ff\n    MB:0= 20;1=100\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := class(t, root, &specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f", EnableMonitoring: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(shared, "mon_groups/box")); err != nil {
		t.Error(err)
	}
	if err := c.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(shared, "mon_groups/box")); !os.IsNotExist(err) {
		t.Errorf("the monitoring group is left: %v", err)
	}
	if _, err := os.Stat(shared); err != nil {
		t.Error("the shared class is gone:", err)
	}
	for want, rdt := range map[string]*specs.LinuxIntelRdt{
		"exists with L3:1=7ff and not with ff": {ClosID: "gold", L3CacheSchema: "L3:1=ff"},
		"closID silver does not exist":         {ClosID: "silver"},
		`closID "../x" is not a name`:          {ClosID: "../x"},
		"does not begin with MB:":              {MemBwSchema: "L3:0=f"},
		"has more than one line":               {Schemata: []string{"L3:0=f\nMB:0=1"}},
	} {
		if _, err := class(t, root, rdt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
