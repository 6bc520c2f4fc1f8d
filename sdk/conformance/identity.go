package conformance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/davit-engine/davit/sdk/plugin"
	pluginv1 "github.com/davit-engine/davit/sdk/proto/davit/plugin/v1"
)

// identityChecks are those that every plugin passes, whatever its drivers.
func identityChecks() []Check {
	return []Check{
		{Name: "plugin/handshake", Rule: "prints one line to standard output", run: checkHandshake},
		{Name: "plugin/mutual-tls", Rule: "with mutual TLS if the certificate was given", run: checkMutualTLS},
		{Name: "plugin/info", Rule: `Name as in the manifest, "<kind>-<driver>".`, run: checkInfo},
		{Name: "plugin/health", Rule: "Health says whether the drivers can work.", run: checkHealth},
		{Name: "plugin/unknown-method", Rule: "the driver cannot do this at all", run: checkUnknownMethod},
		{Name: "plugin/shutdown", Rule: "The plugin finishes or undoes what it is doing; what containers use stays.", run: checkShutdown},
		{Name: "plugin/leaves-with-the-engine", Rule: "A plugin exits when that process has died", run: checkParent},
	}
}

// checkHandshake: the bench has shaken hands; a second process must not mind the
// first.
func checkHandshake(t *T) {
	p, line, err := spawn(t.ctx, t.o)
	t.must(err, "starting a second process")
	defer p.kill()
	socket, err := parseHandshake(line)
	t.must(err, "the handshake")
	if filepath.Dir(socket) != p.sockets {
		t.errorf("its socket is %s, and not in PLUGIN_UNIX_SOCKET_DIR", socket)
	}
}

func checkMutualTLS(t *T) {
	sockets, err := os.MkdirTemp("", "davit-kit")
	t.must(err, "making a directory of sockets")
	defer func() { _ = os.RemoveAll(sockets) }()
	cmd := exec.CommandContext(t.ctx, t.o.Path)
	cmd.Env = environment(sockets, os.Getpid())
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: plugin.Handshake(), Plugins: goplugin.PluginSet{"davit": &goplugin.NetRPCUnsupportedPlugin{}},
		Cmd: cmd, SkipHostEnv: true, StartTimeout: startTimeout, AutoMTLS: true,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(),
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: sockets},
	})
	defer client.Kill()
	rpc, err := client.Client()
	t.must(err, "connecting")
	t.must(rpc.Ping(), "asking for its health")
	served, ok := rpc.(*goplugin.GRPCClient)
	if !ok {
		t.fatalf("it does not speak gRPC")
	}
	_, err = pluginv1.NewIdentityClient(served.Conn).Info(t.ctx, &pluginv1.InfoRequest{})
	t.must(err, "Info")
}

func checkInfo(t *T) {
	info := t.plug.info
	if t.o.Name != "" && info.GetName() != t.o.Name {
		t.errorf("its name is %q, and in the manifest %q", info.GetName(), t.o.Name)
	}
	if !strings.HasPrefix(info.GetName(), string(t.o.Kind)+"-") {
		t.errorf("its name %q does not begin with %s-", info.GetName(), t.o.Kind)
	}
	if info.GetVersion() == "" {
		t.errorf("it has no version")
	}
	again, err := pluginv1.NewIdentityClient(t.plug.conn).Info(t.ctx, &pluginv1.InfoRequest{})
	t.must(err, "Info")
	if again.String() != info.String() {
		t.errorf("it answers differently after Configure: %v, before: %v", again, info)
	}
}

func checkHealth(t *T) {
	health, err := pluginv1.NewIdentityClient(t.plug.conn).Health(t.ctx, &pluginv1.HealthRequest{})
	t.must(err, "Health")
	if !health.GetHealthy() {
		t.errorf("it is not healthy: %s", health.GetReason())
	}
	if health.GetHealthy() && health.GetReason() != "" {
		t.errorf("it is healthy with a reason: %s", health.GetReason())
	}
	r, err := healthv1.NewHealthClient(t.plug.conn).Check(t.ctx, &healthv1.HealthCheckRequest{Service: "plugin"})
	t.must(err, "grpc.health.v1 of service plugin")
	if r.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.errorf("grpc.health.v1 of service plugin answers %s", r.GetStatus())
	}
}

func checkUnknownMethod(t *T) {
	err := t.plug.conn.Invoke(t.ctx, "/"+t.o.Kind.service()+"/NotYetThoughtOf", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) != codes.Unimplemented {
		t.errorf("an unknown method answers %v, not UNIMPLEMENTED", err)
	}
}

func checkShutdown(t *T) {
	ended := t.plug.stop(t.ctx)
	t.plug = nil
	if !ended {
		t.errorf("it still runs 3 s after plugin.GRPCController.Shutdown")
	}
	t.must(t.start(t.ctx), "starting it again")
}

// checkParent starts the plugin as the child of a shell, and kills the shell.
func checkParent(t *T) {
	sockets, err := os.MkdirTemp("", "davit-kit")
	t.must(err, "making a directory of sockets")
	defer func() { _ = os.RemoveAll(sockets) }()
	t.sockets = append(t.sockets, sockets)
	cmd := exec.CommandContext(t.ctx, "/bin/sh", "-c", plugin.EnvParent+`=$$ "$0" & wait`, t.o.Path)
	cmd.Env, cmd.Dir = environment(sockets, 0), "/"
	out, err := cmd.StdoutPipe()
	t.must(err, "making a pipe")
	defer func() { _ = out.Close() }()
	t.must(cmd.Start(), "starting a shell")
	line := make([]byte, 4096)
	n, err := out.Read(line)
	if err == nil {
		_, err = parseHandshake(string(line[:n]))
	}
	pid := childOf(cmd.Process.Pid)
	_ = cmd.Process.Kill()
	_, _ = cmd.Process.Wait()
	t.must(err, "starting it below a shell")
	if pid == 0 {
		return // gone already
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // gone since
	}
	defer func() { _ = unix.Close(fd) }()
	if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000); n == 0 {
		t.errorf("it still runs 5 s after the process in %s has died", plugin.EnvParent)
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

func childOf(pid int) int {
	out, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	child, _ := strconv.Atoi(strings.TrimSpace(string(out)))
	return child
}

// leftovers is the last check: the plugin is asked to end, and nothing is left of
// what the other checks made and removed.
func leftovers() Check {
	return Check{Name: "plugin/leaves-nothing", Rule: "What was removed leaves nothing", run: func(t *T) {
		t.nothingLeft()
		t.plug.stop(context.WithoutCancel(t.ctx))
		t.plug = nil
		if left := t.processes(); len(left) > 0 {
			t.errorf("processes are left: %v", left)
		}
	}}
}

// nothingLeft wants nothing to be there of resources that were removed. What the
// kernel takes away in the background has some seconds.
func (t *T) nothingLeft() {
	left := eventually(func() ([]string, bool) {
		left, err := t.left()
		t.must(err, "looking for what is left")
		return left, len(left) == 0
	})
	for i, what := range left {
		if i == 10 {
			t.errorf("and %d more", len(left)-i)
			break
		}
		t.errorf("left behind: %s", what)
	}
}

// left lists what is there beyond what was there with no resource.
func (b *bench) left() ([]string, error) {
	files, err := b.files()
	if err != nil {
		return nil, err
	}
	var left []string
	for path := range files {
		if !b.bare[path] {
			left = append(left, "file "+path)
		}
	}
	mounts, err := mountsBelow(b.dir)
	if err != nil {
		return nil, err
	}
	for _, at := range mounts {
		left = append(left, "mount "+at)
	}
	groups, err := b.cgroups()
	if err != nil {
		return nil, err
	}
	for _, group := range missing(b.groups, groups...) {
		left = append(left, "cgroup "+group)
	}
	slices.Sort(left)
	if b.o.host != nil {
		now, err := b.o.host.Snapshot()
		if err != nil {
			return nil, err
		}
		left = append(left, missing(b.links, now...)...)
	}
	return left, nil
}

// processes are those that the bench's plugins started, themselves among them:
// they carry the environment of the handshake, or are in a container.
func (b *bench) processes() []string {
	left := b.contained()
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		env, err := os.ReadFile(path)
		if err != nil {
			continue // gone since
		}
		for _, dir := range b.sockets {
			if strings.Contains(string(env), "PLUGIN_UNIX_SOCKET_DIR="+dir+"\x00") {
				exe, _ := os.Readlink(filepath.Join(filepath.Dir(path), "exe"))
				left = append(left, filepath.Base(filepath.Dir(path))+" "+exe)
			}
		}
	}
	return left
}
