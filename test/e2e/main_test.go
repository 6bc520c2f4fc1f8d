// Package e2e drives real binaries, the davit command and the unmodified docker
// client, against private engines, as users do.
package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/test/private"
)

// engine is shared by the tests that do not hurt it.
var engine *private.Engine

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	if os.Geteuid() != 0 {
		fmt.Println("the end-to-end tests make namespaces and mounts: run them as root")
		return 1
	}
	var err error
	if engine, err = private.New(private.Options{}); err != nil {
		fmt.Println(err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), private.Patience(2*time.Minute))
	defer cancel()
	if err := engine.Start(ctx); err != nil {
		fmt.Println(err)
		return 1
	}
	defer func() {
		if err := engine.CleanUp(); err != nil {
			fmt.Println("FAIL: after all tests:", err)
			code = 1
		}
	}()
	if err := importBusybox(ctx, engine); err != nil {
		fmt.Println(err)
		return 1
	}
	code = m.Run()
	if code != 0 {
		fmt.Println("the engine's log ends with\n" + engine.LogTail())
	}
	return code
}

// importBusybox makes the image "busybox" of the machine's own static busybox.
func importBusybox(ctx context.Context, e *private.Engine) error {
	archive, err := busyboxTar(ctx)
	if err != nil {
		return err
	}
	cmd := e.Command(ctx, "davit", "import", "--change", `CMD ["sh"]`, "-", "busybox")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("importing busybox: %w\n%s", err, out)
	}
	return nil
}

// busyboxTar is a root filesystem with busybox, its links, and some accounts.
func busyboxTar(ctx context.Context) ([]byte, error) {
	program := ""
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		if _, err := os.Stat(path); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		return nil, fmt.Errorf("no busybox: install busybox-static")
	}
	body, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	applets, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h *tar.Header, content string) {
		h.Size, h.ModTime = int64(len(content)), time.Unix(1700000000, 0)
		if err == nil {
			err = w.WriteHeader(h)
		}
		if err == nil {
			_, err = w.Write([]byte(content))
		}
	}
	for _, dir := range []string{"bin/", "etc/", "root/", "home/", "var/", "data/"} {
		add(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, "")
	}
	add(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, "")
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, string(body))
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + filepath.Base(applet), Linkname: "busybox", Mode: 0o777}, "")
		}
	}
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/sh\n")
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, "root:x:0:\nstaff:x:50:nobody\nnogroup:x:65534:\n")
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "data/from-image", Mode: 0o644}, "image\n")
	if err == nil {
		err = w.Close()
	}
	return b.Bytes(), err
}
