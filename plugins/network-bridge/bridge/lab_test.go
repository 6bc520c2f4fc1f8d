package bridge

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/ipam"
	"github.com/davit-engine/davit/sdk/network"
)

// inside marks the process that the tests run in: one with a network and mount
// namespace of its own, so that the driver has a host to itself.
const inside = "DAVIT_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		if os.Getenv(inside) != "" {
			if err := prepareHost(); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		if os.Getenv(churnIn) != "" {
			churn()
		}
		os.Exit(m.Run())
	}

	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the parent of Pdeathsig is a thread
	if err := cmd.Run(); err != nil {
		fmt.Println("tests in a network namespace of their own:", err)
		os.Exit(1)
	}
}

// prepareHost makes the fresh namespace a host.
func prepareHost() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, kind := range []string{"iptables", "ip6tables"} {
		_ = writeSysctl("net/bridge/bridge-nf-call-"+kind, "0") // absent without br_netfilter
	}
	return nil
}

// lab is a host with a driver, and another host beside it.
type lab struct {
	testing.TB
	*Driver
	root   string
	config Config
	lan    string // namespace of the other host
}

// The addresses of host and other host, and networks with many subnets to take.
const (
	host4, host6 = "192.0.2.1", "2001:db8::1"
	lan4, lan6   = "192.0.2.2", "2001:db8::2"
)

func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	l := &lab{TB: t, root: t.TempDir(), config: Config{Bridge: "davit0", Table: "davit", MTU: 1500, Pools: labPools()}}
	l.lan = l.namespace()
	l.sh("ip link add lan type veth peer name eth0 netns "+l.lan,
		"ip addr add "+host4+"/24 dev lan", "ip addr add "+host6+"/64 dev lan nodad", "ip link set lan up")
	t.Cleanup(func() { _ = exec.CommandContext(context.WithoutCancel(t.Context()), "ip", "link", "del", "lan").Run() })
	l.shIn(l.lan, "ip addr add "+lan4+"/24 dev eth0", "ip addr add "+lan6+"/64 dev eth0 nodad", "ip link set eth0 up",
		"ip route add default via "+host4, "ip -6 route add default via "+host6)
	l.start()
	t.Cleanup(l.end)
	return l
}

func labPools() []ipam.Block {
	return []ipam.Block{{Base: netip.MustParsePrefix("10.90.0.0/16"), Size: 24}, {Base: netip.MustParsePrefix("fd00:90::/48"), Size: 64}}
}

func (l *lab) start() {
	l.Helper()
	var err error
	if l.Driver, err = New(l.root, l.config, hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: os.Stderr})); err != nil {
		l.Fatal(err)
	}
}

// restart is what a new process of the driver does.
func (l *lab) restart() {
	l.Helper()
	l.Close()
	l.start()
}

// end removes everything and checks that nothing is left.
func (l *lab) end() {
	if err := l.Reconcile(l.Context(), nil, nil); err != nil {
		l.Error(err)
	}
	l.Close()
	links, err := netlink.LinkList()
	if err != nil {
		l.Fatal(err)
	}
	for _, link := range links {
		name := link.Attrs().Name
		if link.Type() == "bridge" || strings.HasPrefix(name, "veth") {
			l.Errorf("link %s is left", name)
		}
	}
	if out, _ := l.try("", "nft list ruleset"); strings.Contains(out, "table inet davit ") {
		l.Errorf("rules are left:\n%s", out)
	}
}

// namespace makes a network namespace and answers its path.
func (l *lab) namespace() string {
	l.Helper()
	path := filepath.Join(l.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		l.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		result <- err
	}()
	if err := <-result; err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	l.shIn(path, "ip link set lo up")
	return path
}

func (l *lab) sh(commands ...string) string {
	l.Helper()
	return l.shIn("", commands...)
}

// shIn runs commands in a namespace and answers what they say.
func (l *lab) shIn(ns string, commands ...string) string {
	l.Helper()
	out, err := l.try(ns, strings.Join(commands, " && "))
	if err != nil {
		l.Fatalf("%s: %v\n%s", commands, err, out)
	}
	return out
}

func (l *lab) try(ns, command string) (string, error) {
	args := []string{"sh", "-c", command}
	if ns != "" {
		args = append([]string{"nsenter", "--net=" + ns}, args...)
	}
	out, err := exec.CommandContext(context.WithoutCancel(l.Context()), args[0], args[1:]...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// in runs fn inside a namespace ("" is the host).
func (l *lab) in(ns string, fn func() error) error {
	if ns == "" {
		return fn()
	}
	handle, err := netns.GetFromPath(ns)
	if err != nil {
		return err
	}
	defer func() { _ = handle.Close() }()
	return within(handle, fn)
}

// network makes a network.
func (l *lab) network(id string, change func(*network.Network)) network.Network {
	l.Helper()
	n := network.Network{ID: id, Name: id, IPv4: true, IPv6: true, Options: map[string]string{}}
	if change != nil {
		change(&n)
	}
	made, err := l.CreateNetwork(l.Context(), n)
	if err != nil {
		l.Fatal(err)
	}
	return made
}

// container makes a namespace and attaches it.
func (l *lab) container(networkID, id string, change func(*network.Attachment)) network.Endpoint {
	l.Helper()
	a := l.attachment(networkID, id)
	if change != nil {
		change(&a)
	}
	e, err := l.Attach(l.Context(), a)
	if err != nil {
		l.Fatal(err)
	}
	return e
}

func (l *lab) attachment(networkID, id string) network.Attachment {
	l.Helper()
	return network.Attachment{NetworkID: networkID, EndpointID: id, ContainerID: id, Netns: l.namespace(), Interface: "eth0", Gateway4: true, Gateway6: true}
}

func tcp(container, hostPort uint16) network.Port {
	return network.Port{Proto: "tcp", ContainerPort: container, HostPort: hostPort}
}

// listen listens on a TCP port until the test is over.
func (l *lab) listen(ns string, port int) (listener net.Listener) {
	l.Helper()
	if err := l.in(ns, func() (err error) {
		listener, err = net.Listen("tcp", ":"+strconv.Itoa(port))
		return err
	}); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = listener.Close() })
	return listener
}

// serve answers every client, over TCP, UDP and SCTP where there is SCTP, with the
// address that it comes from and the server's name.
func (l *lab) serve(ns, name string, port int) {
	l.Helper()
	streams := []net.Listener{l.listen(ns, port)}
	var packets net.PacketConn
	err := l.in(ns, func() (err error) {
		if hasSCTP() {
			stream, err := listenSCTP(port)
			if err != nil {
				return err
			}
			l.Cleanup(func() { _ = stream.Close() })
			streams = append(streams, stream)
		}
		packets, err = net.ListenPacket("udp", ":"+strconv.Itoa(port))
		return err
	})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = packets.Close() })
	answer := func(a net.Addr) []byte {
		from, _ := netip.ParseAddrPort(a.String())
		return fmt.Appendf(nil, "%s to %s\n", from.Addr().Unmap().WithZone(""), name)
	}
	for _, stream := range streams {
		go func() {
			for {
				c, err := stream.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write(answer(c.RemoteAddr()))
				_ = c.Close()
			}
		}()
	}
	go func() {
		b := make([]byte, 100)
		for {
			_, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(answer(from), from)
		}
	}()
}

// serveHTTP answers every request with the client's address.
func (l *lab) serveHTTP(ns string, port int) {
	l.Helper()
	listener := l.listen(ns, port)
	server := &http.Server{ReadHeaderTimeout: wait, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RemoteAddr)
	})}
	go func() { _ = server.Serve(listener) }()
	l.Cleanup(func() { _ = server.Close() })
}

// wait bounds what must not answer, and, many times over, what must. Emulated
// machines need several times as long (DAVIT_TEST_PATIENCE).
var wait = func() time.Duration {
	factor, err := strconv.Atoi(os.Getenv("DAVIT_TEST_PATIENCE"))
	if err != nil || factor < 1 {
		factor = 1
	}
	return time.Duration(factor) * 250 * time.Millisecond
}()

// ask calls a server and answers "CLIENT to SERVER" as the server sees it, or
// what went wrong: "timeout" or "refused".
func (l *lab) ask(ns, proto, address string, port int) string {
	l.Helper()
	var said string
	err := l.in(ns, func() error {
		var c net.Conn
		var err error
		if proto == "sctp" {
			c, err = dialSCTP(address, port)
		} else {
			c, err = net.DialTimeout(proto, net.JoinHostPort(address, strconv.Itoa(port)), wait)
		}
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(wait))
		if proto == "udp" {
			if _, err := io.WriteString(c, "?"); err != nil {
				return err
			}
		}
		said, err = bufio.NewReader(c).ReadString('\n')
		return err
	})
	switch text := fmt.Sprint(err); {
	case err == nil:
		return strings.TrimSpace(said)
	case os.IsTimeout(err):
		return "timeout"
	case strings.Contains(text, "refused"):
		return "refused"
	default:
		return text
	}
}

// expect asks until the answer is the wanted one, or a bound is reached.
func (l *lab) expect(ns, proto, address string, port int, want string) {
	l.Helper()
	got := ""
	for range 10 {
		if got = l.ask(ns, proto, address, port); got == want {
			return
		}
		if want == "timeout" || want == "refused" {
			break
		}
	}
	l.Errorf("%s to %s port %d: %q, want %q", proto, address, port, got, want)
}
