package local

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/plugins/volume-local/fsmount"
)

// crashRoot names, to this program, the root of the driver it is to be.
const crashRoot = "VOLUME_LOCAL_CRASH_ROOT"

// busyDriver is a driver's process that works until it is killed. It says what
// it has acknowledged.
func busyDriver() {
	root := os.Getenv(crashRoot)
	if root == "" {
		return
	}
	ctx := context.Background()
	d, err := New(Options{Root: root})
	if err != nil {
		fmt.Println("open", err)
		os.Exit(1)
	}
	stay := func(doing string, err error) {
		if err != nil {
			fmt.Println("failed", doing, err)
			os.Exit(1)
		}
	}
	stay("reconcile", d.Reconcile(ctx, nil))
	fmt.Println("ready")
	for i := 0; ; i++ {
		name := fmt.Sprintf("v%d-%d", os.Getpid(), i)
		options := map[string]string{}
		if i%2 == 0 {
			options = map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=64k"}
		}
		v, err := d.Create(ctx, name, options, nil)
		stay("create", err)
		if i%4 == 1 {
			stay("write", os.WriteFile(v.Mountpoint+"/file", []byte(name), 0o600))
			fmt.Println("kept", name)
			continue
		}
		_, err = d.Mount(ctx, name, "one")
		stay("mount", err)
		stay("unmount", d.Unmount(ctx, name, "one"))
		stay("remove", d.Remove(ctx, name))
		fmt.Println("removed", name)
	}
}

// TestKilledInTheMiddle kills the driver's process again and again. What it had
// acknowledged is so, and nothing is left of what it had not.
func TestKilledInTheMiddle(t *testing.T) {
	root := t.TempDir()
	t.Cleanup(func() { _ = unmountBelow(root) })
	kept, removed := map[string]bool{}, map[string]bool{}
	enough := time.Now().Add(10 * time.Second) // the race detector lets every process wait at its end
	for round := 0; round < 25 && (time.Now().Before(enough) || len(kept) == 0 || len(removed) == 0); round++ {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), crashRoot+"="+root)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Every fifth may be killed while it starts, the others some time after some of
		// their work.
		killer := time.AfterFunc(time.Hour, func() { _ = cmd.Process.Kill() })
		after, work := time.Duration(rand.IntN(20_000))*time.Microsecond, rand.IntN(8)
		if round%5 == 0 {
			killer.Reset(after)
		}
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if work--; work == -1 {
				killer.Reset(after)
			}
			what, name, _ := strings.Cut(lines.Text(), " ")
			switch what {
			case "kept":
				kept[name] = true
			case "removed":
				removed[name] = true
			case "ready":
			default:
				t.Errorf("the driver says: %s", lines.Text())
			}
		}
		_ = cmd.Wait()
		killer.Stop()
	}
	d := open(t, root)
	if err := d.Reconcile(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if at := places(t, d); at != "" {
		t.Errorf("left mounted: %s", at)
	}
	list, err := d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, v := range list {
		there[v.Name] = true
		if removed[v.Name] {
			t.Errorf("%s was removed", v.Name)
		}
	}
	for name := range kept {
		if body, err := os.ReadFile(d.data(name) + "/file"); string(body) != name || !there[name] {
			t.Errorf("%s has %q, %v", name, body, err)
		}
	}
	if len(kept) == 0 || len(removed) == 0 {
		t.Errorf("%d kept and %d removed volumes prove nothing", len(kept), len(removed))
	}
	// All of them can be removed: nothing counts a consumer that is gone.
	for name := range there {
		if err := d.Remove(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	for _, dir := range []string{d.dir(""), d.trash()} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
	if err := fsmount.Unmount(root); err != nil {
		t.Error(err)
	}
}
