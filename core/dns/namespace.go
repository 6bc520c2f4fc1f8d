package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// receiveBuffer of a container's server, in bytes: programs ask in bursts.
const receiveBuffer = 1 << 20

// namespace is a network namespace that sockets are made in.
type namespace struct{ fd int }

func openNamespace(path string) (*namespace, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &namespace{fd}, nil
}

func (n *namespace) close() { _ = unix.Close(n.fd) }

// run calls fn on a thread in the namespace: a socket belongs to the namespace of
// the thread that makes it. fn must not wait, nor resolve names.
func (n *namespace) run(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends in that namespace
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("joining: %w", err)
			return
		}
		result <- fn()
	}()
	return <-result
}

// visit is run for what happens often: the thread comes back to the namespace
// home.
func (n *namespace) visit(home *namespace, fn func() error) error {
	if n == home {
		return fn()
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("joining the container's network: %w", err)
			return
		}
		err := fn()
		if unix.Setns(home.fd, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		} // else nobody else gets the thread: it ends with this function
		result <- err
	}()
	return <-result
}

// listen opens sockets on the name server's address at ports of the kernel's
// choice, and redirects port 53 to them: the container may use that port itself.
func listen(ns *namespace) (packets *net.UDPConn, stream net.Listener, err error) {
	err = ns.run(func() (err error) {
		address := net.IPv4(127, 0, 0, 11)
		if packets, err = net.ListenUDP("udp4", &net.UDPAddr{IP: address}); err != nil {
			return err
		}
		force(packets, receiveBuffer)
		if stream, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: address}); err != nil {
			return err
		}
		return redirect(packets.LocalAddr().(*net.UDPAddr).Port, stream.Addr().(*net.TCPAddr).Port)
	})
	if err != nil {
		if packets != nil {
			_ = packets.Close()
		}
		if stream != nil {
			_ = stream.Close()
		}
		return nil, nil, err
	}
	return packets, stream, nil
}

// force gives a socket a receive buffer beyond what everybody may have. Without
// the right to do so the buffer stays smaller.
func force(conn *net.UDPConn, size int) {
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) })
	}
}

// dial makes a socket in the namespace and begins to connect it, without waiting:
// a connection that does not come about is the first write's error.
func (n *namespace) dial(ctx context.Context, home *namespace, network string, server netip.AddrPort) (*os.File, error) {
	kind := unix.SOCK_DGRAM
	if network == "tcp" {
		kind = unix.SOCK_STREAM
	}
	fd := -1
	err := n.visit(home, func() error {
		family, address, err := socketAddress(server)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err := unix.Connect(fd, address); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return err
		}
		return nil
	})
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	// The runtime's poller waits for such a file, as for the connections of package
	// net, which take some more system calls for each.
	file := os.NewFile(uintptr(fd), "name server "+server.String())
	deadline, _ := ctx.Deadline()
	if err := file.SetDeadline(deadline); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// socketAddress is an address for the kernel. The zone of a link-local one is an
// interface of the thread's namespace.
func socketAddress(server netip.AddrPort) (family int, address unix.Sockaddr, err error) {
	a := server.Addr().Unmap()
	if a.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(server.Port()), Addr: a.As4()}, nil
	}
	to := &unix.SockaddrInet6{Port: int(server.Port()), Addr: a.As16()}
	if zone := a.Zone(); zone != "" {
		device, err := net.InterfaceByName(zone)
		if err != nil {
			return 0, nil, err
		}
		to.ZoneId = uint32(device.Index)
	}
	return unix.AF_INET6, to, nil
}
