package scaffold

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// every is each driver that there is a template of.
func every() []Driver {
	var list []Driver
	for _, kind := range []string{"storage", "network", "runtime", "volume"} {
		for _, lang := range []string{"go", "python"} {
			if kind != "runtime" || lang != "python" {
				list = append(list, Driver{Kind: kind, Name: "my-own2", Lang: lang, Version: "v1.2.3"})
			}
		}
	}
	return list
}

func TestABeginningIsShort(t *testing.T) {
	for _, d := range every() {
		files, err := d.Files()
		if err != nil {
			t.Fatal(err)
		}
		main := files["main.go"]
		if d.Lang == "python" {
			main = files[d.Plugin()]
		}
		if lines := bytes.Count(main, []byte("\n")); lines == 0 || lines >= 100 {
			t.Errorf("%s in %s has %d lines", d.Plugin(), d.Lang, lines)
		}
		for name, body := range files {
			if bytes.Contains(body, []byte("@NAME@")) || bytes.Contains(body, []byte("@KIND@")) {
				t.Errorf("%s of %s in %s is not filled in", name, d.Plugin(), d.Lang)
			}
		}
		var manifest struct{ Name, Kind, Driver, Version string }
		if err := json.Unmarshal(files[d.Plugin()+".json"], &manifest); err != nil || manifest.Name != d.Kind+"-my-own2" || manifest.Kind != d.Kind || manifest.Driver != "my-own2" {
			t.Errorf("manifest %+v, %v", manifest, err)
		}
		if !bytes.Contains(main, []byte(`"`+manifest.Name+`"`)) || !bytes.Contains(main, []byte(`"`+manifest.Version+`"`)) {
			t.Errorf("%s in %s has other names than its manifest", d.Plugin(), d.Lang)
		}
		if d.Lang == "go" && !bytes.Contains(files["go.mod"], []byte("require github.com/davit-engine/davit v1.2.3")) {
			t.Errorf("go.mod: %s", files["go.mod"])
		}
	}
	files, err := Driver{Kind: "volume", Name: "x", Lang: "go", Version: "dev-dirty"}.Files()
	if err != nil || bytes.Contains(files["go.mod"], []byte("require")) {
		t.Errorf("of a version that nobody can fetch: %s, %v", files["go.mod"], err)
	}
}

// TestTheExamplesAreWhatIsWritten keeps the two from growing apart.
func TestTheExamplesAreWhatIsWritten(t *testing.T) {
	for example, d := range map[string]Driver{
		"volume-minimal/main.go":              {Kind: "volume", Name: "minimal", Lang: "go"},
		"volume-python/davit-volume-python":   {Kind: "volume", Name: "python", Lang: "python"},
		"network-python/davit-network-python": {Kind: "network", Name: "python", Lang: "python"},
	} {
		files, err := d.Files()
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("../../examples", example))
		if err != nil {
			t.Fatal(err)
		}
		got := string(files[filepath.Base(example)])
		if got = strings.Replace(got, `"0.1.0"`, `"1.0.0"`, 1); got != string(want) {
			t.Errorf("%s is not what its template makes", example)
		}
	}
}

func TestWhatCannotBeWritten(t *testing.T) {
	for why, d := range map[string]Driver{
		`kind "disk" is none of storage, network, runtime, volume`:  {Kind: "disk", Name: "x", Lang: "go"},
		`"../x" cannot be a driver's name`:                          {Kind: "volume", Name: "../x", Lang: "go"},
		`"" cannot be a driver's name`:                              {Kind: "volume", Lang: "go"},
		`language "rust" is none of go, python`:                     {Kind: "volume", Name: "x", Lang: "rust"},
		"no beginning of a runtime driver in python, but one in Go": {Kind: "runtime", Name: "x", Lang: "python"},
	} {
		dir := filepath.Join(t.TempDir(), "new")
		if err := d.Write(dir); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, want %q", err, why)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", dir, err)
		}
	}
}

func TestNothingIsWrittenOver(t *testing.T) {
	d, dir := Driver{Kind: "volume", Name: "x", Lang: "python"}, t.TempDir()
	mine := filepath.Join(dir, "README.md")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(dir); !errdefs.IsAlreadyExists(err) {
		t.Errorf("into a directory with something in it: %v", err)
	}
	if body, err := os.ReadFile(mine); err != nil || string(body) != "mine" {
		t.Errorf("%q, %v", body, err)
	}
	if err := d.Write(filepath.Join(dir, "no", "parent")); err == nil {
		t.Error("a directory whose parent is not there was made")
	}
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(dir); err != nil { // empty
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, d.Plugin())); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
}
