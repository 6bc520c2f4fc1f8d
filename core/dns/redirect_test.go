package dns

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A question that comes while the engine takes over must not lose its answer's
// way back.
func TestOnlyFlowsToTheFormerEngineAreForgotten(t *testing.T) {
	f := &former{udp: 1000, tcp: 2000}
	for _, c := range []struct {
		proto   uint8
		to      string
		port    uint16
		forgets bool
	}{
		{unix.IPPROTO_UDP, "127.0.0.11", 999, true}, {unix.IPPROTO_UDP, "127.0.0.11", 1000, false}, {unix.IPPROTO_UDP, "127.0.0.11", 2000, true},
		{unix.IPPROTO_TCP, "127.0.0.11", 999, true}, {unix.IPPROTO_TCP, "127.0.0.11", 2000, false},
		{unix.IPPROTO_UDP, "127.0.0.1", 999, false}, {unix.IPPROTO_TCP, "192.0.2.1", 999, false},
	} {
		flow := &netlink.ConntrackFlow{
			Forward: netlink.IPTuple{Protocol: c.proto, DstIP: net.ParseIP(c.to), DstPort: 53},
			Reverse: netlink.IPTuple{Protocol: c.proto, SrcIP: net.ParseIP(c.to), SrcPort: c.port},
		}
		if got := f.MatchConntrackFlow(flow); got != c.forgets {
			t.Errorf("%+v is forgotten: %v", c, got)
		}
	}
}
