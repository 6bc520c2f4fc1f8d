package netns

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// churnIn names the directory in which a child process of the test hands
// namespaces out and takes them back until it is killed.
const churnIn = "DAVIT_TEST_CHURN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(churnIn); dir != "" {
		churn(dir)
	}
	os.Exit(m.Run())
}

func churn(dir string) {
	pool, err := NewPool(dir, 2, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		if _, err := pool.Get(context.Background(), fmt.Sprint("id", i)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if i >= 3 {
			pool.Put(fmt.Sprint("id", i-3))
		}
	}
}

func TestNothingIsLeftByAKilledProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dir := t.TempDir()
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	for round := range 8 {
		child := exec.CommandContext(t.Context(), "/proc/self/exe")
		child.Env = append(os.Environ(), churnIn+"="+dir)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// Any moment is as good as another: the point is that it is in the middle.
		time.Sleep(time.Duration(5+round*7) * time.Millisecond)
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := child.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		pool, err := NewPool(dir, 1, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for id := range pool.given {
			if path, err := pool.Get(t.Context(), id); err != nil || !isNamespace(path) {
				t.Errorf("%s is no namespace: %v", path, err)
			}
		}
		pool.Sweep(nil)
		pool.Close()
		if n := mountsBelow(t, dir); n != 0 {
			t.Errorf("round %d: %d namespaces are left", round, n)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("round %d: files are left: %v, %v", round, entries, err)
		}
	}
}
