package guide

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// TestTheGuide runs the commands of docs/first-driver.md in their order. What would
// change the machine goes to a private engine instead, and its modules are those of
// this repository.
func TestTheGuide(t *testing.T) {
	t.Parallel()
	w := newWorkshop(t)
	text, err := os.ReadFile(filepath.Join(w.repository, "docs", "first-driver.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	plugins := filepath.Join(w.dir, "plugins")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), private.Patience(5*time.Minute))
	defer cancel()
	var engine *private.Engine
	shell := fmt.Sprintf(`set -e
sudo() { "$@"; }
systemctl() { test "$*" = "restart davitd"; }
make() { command make "$@" PLUGINS=%s; }
davit() {
	command davit "$@"
	if [ "$1 $2" = "plugin new" ] && [ -z "$7" ]; then
		(cd davit-volume-photos && go mod edit -require=github.com/davit-engine/davit@v0.0.0 -replace=github.com/davit-engine/davit=%s && cp %[2]s/go.sum .)
	fi
}
`, plugins, w.repository)
	var said strings.Builder
	place := w.dir
	for i, block := range blocks {
		if strings.Contains(block[1], "davit plugin inspect") {
			engine = w.engine(ctx, plugins)
		}
		script := filepath.Join(t.TempDir(), "block.sh")
		if err := os.WriteFile(script, []byte(shell+block[1]+"\npwd > "+script+".pwd\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(ctx, "sh", script)
		if engine != nil {
			cmd = engine.Command(ctx, "sh", script)
		}
		cmd.Dir = place
		cmd.Env = append(cmd.Environ(), "PATH="+w.bin+":"+os.Getenv("PATH"), "GOFLAGS=-mod=mod -buildvcs=false", "GOPROXY=off", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("block %d: %v\n%s\n%s", i+1, err, block[1], out)
		}
		said.Write(out)
		body, err := os.ReadFile(script + ".pwd")
		if err != nil {
			t.Fatal(err)
		}
		place = strings.TrimSpace(string(body))
	}
	// What the text says that one sees.
	for _, want := range []string{
		"volume-photos 0.1.0 keeps the contract", "Remove while c1 has it succeeded, and should have failed with FAILED_PRECONDITION",
		"volume-photos 0.1.0 does not keep the contract", "ready 0.1.0", "sunset", "volume-albums 0.1.0 keeps the contract",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("nothing says %q:\n%s", want, said.String())
		}
	}
	if n := strings.Count(said.String(), "keeps the contract: "); n != 3 {
		t.Errorf("%d drivers were found good, not three", n)
	}
}

// engine is a private engine with the author's plugins and an image.
func (w *workshop) engine(ctx context.Context, plugins string) *private.Engine {
	w.Helper()
	e, err := private.New(private.Options{Plugins: []string{plugins}})
	if err != nil {
		w.Fatal(err)
	}
	if err := e.Start(ctx); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := e.CleanUp(); err != nil {
			w.Error("after the test:", err)
		}
	})
	w.sh("mkdir -p image/bin && cp $(command -v busybox) image/bin/busybox && for a in sh cat; do ln -s busybox image/bin/$a; done && tar -C image -cf image.tar .")
	if out, err := e.Command(ctx, "davit", "import", filepath.Join(w.dir, "image.tar"), "busybox").CombinedOutput(); err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	return e
}
