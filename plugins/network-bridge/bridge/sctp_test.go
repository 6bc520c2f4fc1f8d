package bridge

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// hasSCTP says whether the kernel speaks SCTP.
func hasSCTP() bool {
	_ = exec.Command("modprobe", "sctp").Run()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// listenSCTP listens on all addresses, of IPv4 too. Package net knows no SCTP, but
// treats its streams as those of TCP.
func listenSCTP(port int) (net.Listener, error) {
	f, err := socketSCTP(unix.AF_INET6)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	fd := int(f.Fd())
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet6{Port: port}), unix.Listen(fd, 16)); err != nil {
		return nil, err
	}
	return net.FileListener(f)
}

// dialSCTP gives up as ask does.
func dialSCTP(address string, port int) (net.Conn, error) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return nil, err
	}
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: port, Addr: ip.As16()})
	if ip.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: ip.As4()}
	}
	f, err := socketSCTP(family)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	fd := int(f.Fd())
	limit := unix.NsecToTimeval(wait.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	if err == nil {
		err = unix.Connect(fd, to)
	}
	switch {
	case errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EAGAIN):
		return nil, os.ErrDeadlineExceeded
	case err != nil:
		return nil, err
	}
	return net.FileConn(f)
}

func socketSCTP(family int) (*os.File, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "sctp"), nil
}
