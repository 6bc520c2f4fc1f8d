// Package netdev moves network devices of the host into containers, as
// linux.netDevices of the runtime-spec asks.
package netdev

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// maxName is the longest name of a device (IFNAMSIZ without its end).
const maxName = 15

// Check refuses devices that could not be moved on any host.
func Check(devices map[string]specs.LinuxNetDevice, namespaces []specs.LinuxNamespace) error {
	if len(devices) == 0 {
		return nil
	}
	if !slices.ContainsFunc(namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace }) {
		return invalid("linux.netDevices need a network namespace of the container's own")
	}
	taken := map[string]bool{}
	for name, device := range devices {
		inside := inside(name, device)
		for _, n := range []string{name, inside} {
			if n == "" || len(n) > maxName || n == "." || n == ".." || strings.ContainsAny(n, "/: \t\n\v\f\r") {
				return invalid("linux.netDevices: %q is not a name of a network device", n)
			}
		}
		if taken[inside] && !strings.Contains(inside, "%d") {
			return invalid("linux.netDevices: two devices would be called %s", inside)
		}
		taken[inside] = true
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// inside is a device's name in the container.
func inside(name string, device specs.LinuxNetDevice) string {
	if device.Name != "" {
		return device.Name
	}
	return name
}

// Move moves devices by their names here into the network namespace at path, with
// their permanent global addresses, and switches them on. They are never moved
// back: they are the namespace's from then on.
func Move(path string, devices map[string]specs.LinuxNetDevice) error {
	if len(devices) == 0 {
		return nil
	}
	target, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer func() { _ = target.Close() }()
	there, err := netlink.NewHandleAt(target)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer there.Close()
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if err := move(there, int(target), name, inside(name, devices[name])); err != nil {
			return fmt.Errorf("moving network device %s: %w", name, err)
		}
	}
	return nil
}

func move(there *netlink.Handle, target int, name, wanted string) error {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	addresses, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("reading its addresses: %w", err)
	}
	before, err := names(there)
	if err != nil {
		return err
	}
	if before[wanted] {
		return fmt.Errorf("the container has a device %s: %w", wanted, errdefs.ErrAlreadyExists)
	}
	// Place and name in one request: neither name may be taken in between.
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(link.Attrs().Index)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(target))))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(wanted)))
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return err
	}
	moved, err := newcomer(there, before)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		if address.Flags&unix.IFA_F_PERMANENT == 0 || address.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		again := &netlink.Addr{IPNet: address.IPNet, Peer: address.Peer, Broadcast: address.Broadcast, Flags: address.Flags &^ unix.IFA_F_TENTATIVE}
		if err := there.AddrReplace(moved, again); err != nil {
			return fmt.Errorf("restoring address %s: %w", address.IPNet, err)
		}
	}
	if err := there.LinkSetUp(moved); err != nil {
		return fmt.Errorf("switching it on: %w", err)
	}
	return nil
}

func names(h *netlink.Handle) (map[string]bool, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing the container's devices: %w", err)
	}
	known := map[string]bool{}
	for _, link := range links {
		known[link.Attrs().Name] = true
	}
	return known, nil
}

// newcomer is the device that was not there before: the kernel may have chosen
// its name and number.
func newcomer(there *netlink.Handle, before map[string]bool) (netlink.Link, error) {
	links, err := there.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing the container's devices: %w", err)
	}
	for _, link := range links {
		if !before[link.Attrs().Name] {
			return link, nil
		}
	}
	return nil, errors.New("it is not in the container")
}
