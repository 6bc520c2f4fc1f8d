package native_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// note is a hook that appends to a file of the test: its name, its root's
// busybox, its hostname, argument and environment, and keeps the state it is told.
func note(b *box, name, dir string) specs.Hook {
	script := `[ -d /container ] && where=container || where=runtime; { echo "` + name + ` $where $(cat /proc/sys/kernel/hostname) $1 $V"; } >>` + dir + `/order; cat >` + dir + `/` + name + `.json`
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script, "sh", "arg"}, Env: []string{"PATH=/bin:/usr/bin", "V=value"}}
}

func TestHooks(t *testing.T) {
	t.Parallel()
	// cat for the hook that runs below the container's root.
	b := newBox(t, "echo program >>/out/order; exec busybox sleep 600")
	if err := os.Mkdir(filepath.Join(b.dir, "upper/container"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(b.dir, "upper/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("busybox", filepath.Join(b.dir, "upper/bin/cat")); err != nil {
		t.Fatal(err)
	}
	b.spec.Hostname = "inside"
	b.spec.Annotations = map[string]string{"key": "value"}
	b.spec.Hooks = &specs.Hooks{
		Prestart:        []specs.Hook{note(b, "prestart", b.out)}, //nolint:staticcheck // deprecated, and supported
		CreateRuntime:   []specs.Hook{note(b, "createRuntime", b.out)},
		CreateContainer: []specs.Hook{note(b, "createContainer", b.out)},
		StartContainer:  []specs.Hook{note(b, "startContainer", "/out")},
		Poststart:       []specs.Hook{note(b, "poststart", b.out)},
		Poststop:        []specs.Hook{note(b, "poststop", b.out)},
	}
	p := b.start()
	waitFor(t, "the program", func() bool {
		body, _ := os.ReadFile(filepath.Join(b.out, "order"))
		return strings.Contains(string(body), "program")
	})
	b.remove()
	order, err := os.ReadFile(filepath.Join(b.out, "order"))
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	outside, inside := "runtime "+host+" arg value", " inside arg value"
	lines := strings.Split(strings.TrimSpace(string(order)), "\n")
	want := []string{"prestart " + outside, "createRuntime " + outside, "createContainer runtime" + inside, "startContainer container" + inside}
	if len(lines) != 7 || strings.Join(lines[:4], "\n") != strings.Join(want, "\n") {
		t.Fatalf("the hooks ran as %q, want %q first", lines, want)
	}
	// The program and the hooks after its start run at the same time.
	if rest := strings.Join(lines[4:], "\n"); !strings.Contains(rest, "program") || !strings.Contains(rest, "poststart "+outside) || lines[6] != "poststop "+outside {
		t.Errorf("the program and its last hooks ran as %q", lines[4:])
	}
	for name, want := range map[string]specs.State{
		"prestart": {Status: specs.StateCreating, Pid: p.PID}, "createRuntime": {Status: specs.StateCreating, Pid: p.PID},
		"createContainer": {Status: specs.StateCreating, Pid: 1}, "startContainer": {Status: specs.StateCreated, Pid: 1},
		"poststart": {Status: specs.StateRunning, Pid: p.PID}, "poststop": {Status: specs.StateStopped},
	} {
		body, err := os.ReadFile(filepath.Join(b.out, name+".json"))
		var state specs.State
		if err == nil {
			err = json.Unmarshal(body, &state)
		}
		if err != nil || state.Status != want.Status || state.Pid != want.Pid || state.ID != b.id || state.Version != specs.Version ||
			state.Bundle != filepath.Join(lab.run, b.id) || state.Annotations["key"] != "value" {
			t.Errorf("%s was told %s, %v", name, body, err)
		}
	}
}

func TestFailingHooks(t *testing.T) {
	t.Parallel()
	fail := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo because; exit 3"}}}
	for name, change := range map[string]func(*specs.Hooks){
		"prestart":        func(h *specs.Hooks) { h.Prestart = fail }, //nolint:staticcheck // deprecated, and supported
		"createRuntime":   func(h *specs.Hooks) { h.CreateRuntime = fail },
		"createContainer": func(h *specs.Hooks) { h.CreateContainer = fail },
		"startContainer": func(h *specs.Hooks) {
			h.StartContainer = []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo because; exit 3"}}}
		},
		"poststart": func(h *specs.Hooks) { h.Poststart = fail },
	} {
		b := newBox(t, "busybox sleep 600")
		b.spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{note(b, "poststop", b.out)}}
		change(b.spec.Hooks)
		b.fails("error running " + name + " hook #0: exit status 3, output: because")
		if b.created { // the failure came at the start: the container ends
			if _, err := lab.driver.Wait(b.context(), b.id, ""); err != nil {
				t.Error(err)
			}
		}
		b.remove()
		if _, err := os.Stat(filepath.Join(b.out, "poststop.json")); err != nil {
			t.Errorf("after a failed %s hook: %v", name, err)
		}
	}
}

// TestHooksThatCannotSucceed has one that is not there, one that takes too long,
// and one after the end, whose failure is no error.
func TestHooksThatCannotSucceed(t *testing.T) {
	t.Parallel()
	b := newBox(t, "")
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/no/such/hook"}}}
	b.fails("error running createRuntime hook #0", "/no/such/hook", "no such file")

	b = newBox(t, "")
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 600 & sleep 600"}, Timeout: ptr(1)}}}
	b.fails("hook ran past specified timeout of 1.0s")

	b = newBox(t, "exit 0")
	b.spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/false"}, note(b, "second", b.out)}}
	b.prints("")
	if _, err := os.Stat(filepath.Join(b.out, "second.json")); err != nil {
		t.Error("after a failed poststop hook the next one did not run:", err)
	}

	b = newBox(t, "")
	b.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/true", Timeout: ptr(0)}}}
	b.fails("hooks.poststart[0].timeout 0")
	b.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "true"}}}
	b.fails(`hooks.poststart[0].path "true" is not absolute`)
}
