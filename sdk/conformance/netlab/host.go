// Package netlab makes small worlds in which network drivers work: a host of
// namespaces of its own, another host on its network, and namespaces for containers.
// Nothing of it is seen outside, and all of it is gone with the last process in it.
package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Uplink is the host's interface to the other host, which is its router.
const Uplink = "eth0"

// The addresses of a host and of the other host on its network (RFC 5737 and
// RFC 3849).
var (
	Here4  = netip.MustParsePrefix("192.0.2.1/24")
	Here6  = netip.MustParsePrefix("2001:db8::1/64")
	There4 = netip.MustParsePrefix("192.0.2.2/24")
	There6 = netip.MustParsePrefix("2001:db8::2/64")
)

// Host is a host with a network and mounts of its own. Its files and processes are
// those of the machine.
type Host struct {
	mnt, net *os.File
	dir      string // where namespaces are mounted, in the host's mount namespace only
	count    int
	// Other is the other host.
	Other *Namespace
}

// NewHost makes a host that keeps its namespaces below dir, which exists.
func NewHost(dir string) (*Host, error) {
	h := &Host{dir: dir}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making namespaces: %w", err)
		}
		// Mounts of the machine come and go here, too; none goes back.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return fmt.Errorf("cutting mounts off from the machine's: %w", err)
		}
		// The interfaces in /sys are those of the namespace in which it is mounted.
		if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mounting /sys: %w", err)
		}
		var err error
		if h.mnt, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
			return err
		}
		h.net, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err == nil {
		err = h.connect()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a host for the driver: %w", err), h.Close())
	}
	return h, nil
}

// connect makes the other host and the network to it.
func (h *Host) connect() (err error) {
	if h.Other, err = h.NewNamespace(); err != nil {
		return err
	}
	err = h.Do(func() error {
		// A bridged packet is no business of the firewall's; absent without br_netfilter.
		for _, kind := range []string{"iptables", "ip6tables"} {
			_ = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+kind, []byte("0"), 0o644)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = Uplink
		return errors.Join(upLoopback(), netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: Uplink, PeerNamespace: netlink.NsFd(int(h.Other.file.Fd()))}),
			configure(Here4, Here6, There4.Addr(), There6.Addr()))
	})
	if err != nil {
		return fmt.Errorf("connecting it to another host: %w", err)
	}
	return h.Other.Do(func() error { return configure(There4, There6, netip.Addr{}, netip.Addr{}) })
}

// configure gives the uplink its addresses and default routes.
func configure(ip4, ip6 netip.Prefix, gateway4, gateway6 netip.Addr) error {
	link, err := netlink.LinkByName(Uplink)
	if err != nil {
		return err
	}
	addresses := []*netlink.Addr{{IPNet: ipNet(ip4)}}
	if HasIPv6() {
		addresses = append(addresses, &netlink.Addr{IPNet: ipNet(ip6), Flags: unix.IFA_F_NODAD})
	}
	for _, a := range addresses {
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("address %s: %w", a.IPNet, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for _, gateway := range []netip.Addr{gateway4, gateway6} {
		if !gateway.IsValid() || gateway.Is6() && !HasIPv6() {
			continue
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("route by %s: %w", gateway, err)
		}
	}
	return nil
}

// HasIPv6 says whether the kernel has IPv6.
func HasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func upLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// Do calls fn on a thread that is on the host: sockets that it opens, mounts that it
// makes and processes that it starts are the host's.
func (h *Host) Do(fn func() error) error {
	return onThread(func() error {
		if err := enter(h.mnt, h.net); err != nil {
			return err
		}
		return fn()
	})
}

func enter(mnt, network *os.File) error {
	if mnt != nil {
		// Setns refuses threads that share their working directory with others.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("leaving the other threads: %w", err)
		}
		if err := unix.Setns(int(mnt.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("joining a mount namespace: %w", err)
		}
	}
	if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("joining a network namespace: %w", err)
	}
	return nil
}

// onThread calls fn on a thread that ends with it, so that fn may change it.
func onThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread does not end with its goroutine, and is what /proc/self shows:
			// it is held here, so that fn is called on another.
			defer runtime.UnlockOSThread()
			result <- onThread(fn)
			return
		}
		result <- fn() // and the thread is never unlocked
	}()
	return <-result
}

// Namespace is a network namespace, as the engine makes one for each container.
type Namespace struct {
	Path string // where the host sees it
	host *Host
	file *os.File
}

// NewNamespace makes a namespace whose loopback is up.
func (h *Host) NewNamespace() (*Namespace, error) {
	h.count++
	n := &Namespace{Path: filepath.Join(h.dir, strconv.Itoa(h.count)), host: h}
	if err := os.WriteFile(n.Path, nil, 0o600); err != nil {
		return nil, err
	}
	err := onThread(func() error {
		if err := enter(h.mnt, h.net); err != nil {
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		if n.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return errors.Join(upLoopback(), unix.Mount("/proc/thread-self/ns/net", n.Path, "", unix.MS_BIND, ""))
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a network namespace: %w", err), n.Close())
	}
	return n, nil
}

// Do calls fn on a thread in the namespace.
func (n *Namespace) Do(fn func() error) error {
	return onThread(func() error {
		if err := enter(nil, n.file); err != nil {
			return err
		}
		return fn()
	})
}

// Close destroys the namespace. Closing it again is no error.
func (n *Namespace) Close() error {
	if n.file == nil {
		return nil
	}
	err := n.host.Do(func() error {
		err := unix.Unmount(n.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) { // it was never mounted
			err = nil
		}
		return err
	})
	err = errors.Join(err, n.file.Close(), os.Remove(n.Path))
	n.file = nil
	return err
}

// Close lets the host go, with all that is in it but processes.
func (h *Host) Close() error {
	var errs []error
	if h.Other != nil {
		errs = append(errs, h.Other.Close())
	}
	for _, f := range []*os.File{h.mnt, h.net} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
