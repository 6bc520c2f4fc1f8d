package native_test

import (
	"fmt"
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
)

// pair makes a pair of devices on the host, gone after the test.
func pair(t *testing.T) (string, string) {
	t.Helper()
	if lab.refused != "" {
		t.Skip(lab.refused)
	}
	n := lab.count.Add(1)
	a, b := fmt.Sprintf("dt%da%d", n, os.Getpid()%10000), fmt.Sprintf("dt%db%d", n, os.Getpid()%10000)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{a, b} {
			if link, err := netlink.LinkByName(name); err == nil {
				_ = netlink.LinkDel(link)
				return
			}
		}
	})
	return a, b
}

func TestNetworkDevices(t *testing.T) {
	t.Parallel()
	first, second := pair(t)
	link, err := netlink.LinkByName(first)
	if err == nil {
		var address *netlink.Addr
		if address, err = netlink.ParseAddr("198.51.100.7/24"); err == nil {
			err = netlink.AddrAdd(link, address)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	show := "for d in data num0; do busybox ip -o addr show dev $d | busybox awk '{print $2, $3, $4}' | busybox grep -v inet6; busybox ip link show $d | busybox grep -c ,UP; done"
	b := newBox(t, show)
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{first: {Name: "data"}, second: {Name: "num%d"}}
	b.prints("data inet 198.51.100.7/24\n1\n1")

	// Into a namespace that is there already.
	holder := newBox(t, "busybox sleep 600")
	p := holder.start()
	first, second = pair(t)
	b = newBox(t, "busybox ls /sys/class/net")
	b.join(specs.NetworkNamespace, p.PID, "net")
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{first: {}}
	b.prints(first + "\nlo")

	b = newBox(t, "")
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{second: {Name: "lo"}}
	b.fails("moving network device "+second, "the container has a device lo")
	b = newBox(t, "")
	b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"no-such": {}}
	b.fails("moving network device no-such", "not found")
}
