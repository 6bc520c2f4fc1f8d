package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/plugins/volume-local/fsmount"
)

// nfs needs a kernel that has it. Nobody listens, then somebody who says nothing.
func TestAnNFSServerThatIsNotThere(t *testing.T) {
	_ = exec.CommandContext(t.Context(), "modprobe", "nfsv3").Run()
	if known, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(known), "\tnfs\n") {
		t.Skip("the kernel has no nfs")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	d := open(t, t.TempDir())
	o := func(port int) string {
		return fmt.Sprintf("addr=127.0.0.1,vers=3,nolock,proto=tcp,mountproto=tcp,port=%d,mountport=%d", port, port)
	}
	create(t, d, "silent", map[string]string{"type": "nfs", "device": ":/export", "o": o(port)})
	d.timeout = 3 * time.Second
	begin := time.Now()
	if _, err := d.Mount(t.Context(), "silent", "one"); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "does not answer within 3s") {
		t.Errorf("a silent server: %v", err)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("given up after %s", took)
	}
	_ = l.Close()
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	port = l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	d.timeout = time.Minute
	create(t, d, "absent", map[string]string{"type": "nfs", "device": ":/export", "o": o(port)})
	_, err = d.Mount(t.Context(), "absent", "one")
	if want := fmt.Sprintf("failed to mount local volume: mount :/export:%s, data: %s: connection refused", d.data("absent"), o(port)); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A mount that takes long holds up its own volume and nobody else.
func TestASilentServerHoldsUpNobodyElse(t *testing.T) {
	d := open(t, t.TempDir())
	asked := make(chan struct{}, 2)
	d.mounter = func(ctx context.Context, _ fsmount.Request) error {
		asked <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	create(t, d, "far", map[string]string{"type": "nfs", "device": ":/x", "o": "addr=192.0.2.1"})
	create(t, d, "near", nil)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := d.Mount(ctx, "far", "one"); first <- err }()
	<-asked
	mountFor(t, d, "near", "one")
	if _, err := d.List(t.Context()); err != nil {
		t.Error(err)
	}
	if err := d.Reconcile(t.Context(), nil); err != nil {
		t.Error(err)
	}
	short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := d.Mount(short, "far", "two"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one waits: %v", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	d.timeout = 20 * time.Millisecond
	_, err := d.Mount(t.Context(), "far", "three")
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "addr=192.0.2.1") || !strings.Contains(err.Error(), "the server does not answer within 20ms") {
		t.Errorf("given up: %v", err)
	}
	if err := d.Remove(t.Context(), "far"); err != nil {
		t.Error(err)
	}
}
