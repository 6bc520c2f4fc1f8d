package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/volume"
)

// TestMain lets the test binary be the processes that the tests need.
func TestMain(m *testing.M) {
	switch os.Getenv("SERVE_TEST") {
	case "plugin":
		Serve(Plugin{Name: "volume-test", Version: "1.2.3", Volume: struct {
			volume.Driver
		}{}})
		os.Exit(0)
	case "engine":
		// Starts a plugin, tells its pid and waits to be killed.
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SERVE_TEST=plugin")
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			os.Exit(1)
		}
		fmt.Printf("pid %d\n", cmd.Process.Pid)
		time.Sleep(time.Minute)
	default:
		os.Exit(m.Run())
	}
}

func TestRunByHandExplainsItself(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SERVE_TEST=plugin")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "volume-test 1.2.3 is a driver plugin of davit") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestPluginLeavesWithItsEngine(t *testing.T) {
	h := Handshake()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SERVE_TEST=engine", h.MagicCookieKey+"="+h.MagicCookieValue,
		"PLUGIN_PROTOCOL_VERSIONS=1", "PLUGIN_UNIX_SOCKET_DIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(out)
	pid, serves := 0, false
	for (pid == 0 || !serves) && lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "pid "); ok {
			if pid, err = strconv.Atoi(text); err != nil {
				t.Fatal(err)
			}
		}
		serves = serves || strings.HasPrefix(lines.Text(), "1|1|unix|")
	}
	if !serves {
		t.Fatal("the plugin did not start")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n, err := 0, error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
	}
	if n != 1 || err != nil {
		t.Errorf("the plugin still runs 10 s after its engine: %d, %v", n, err)
	}
}

func TestConfigureGivesTypedValues(t *testing.T) {
	got := configMap(map[string]any{"n": float64(8), "f": 1.5, "l": []any{"a"}, "mixed": []any{"a", true}, "s": "x"})
	if got["n"] != int64(8) || got["f"] != 1.5 || got["s"] != "x" {
		t.Errorf("got %#v", got)
	}
	if l, ok := got["l"].([]string); !ok || len(l) != 1 {
		t.Errorf("list is %T", got["l"])
	}
	if _, ok := got["mixed"].([]any); !ok {
		t.Errorf("mixed list is %T", got["mixed"])
	}
}

func TestDriversWaitForConfigure(t *testing.T) {
	s := &server{plugin: Plugin{Name: "x"}}
	if err := s.allow("/davit.volume.v1.Volume/Get"); err == nil {
		t.Error("a driver was called before Configure")
	}
	if err := s.allow("/davit.plugin.v1.Identity/Info"); err != nil {
		t.Error(err)
	}
	if _, err := s.Configure(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.allow("/davit.volume.v1.Volume/Get"); err != nil {
		t.Error(err)
	}
}
