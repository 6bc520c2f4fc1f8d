package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	mobynetwork "github.com/moby/moby/api/types/network"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/network"
	sdknetwork "github.com/davit-engine/davit/sdk/network"
)

// known are networks that are found; nothing else is asked of them.
type known struct {
	Networks
	list map[string]network.Network
}

func (k known) Find(id string) (network.Network, error) {
	if n, ok := k.list[id]; ok {
		return n, nil
	}
	return network.Network{}, errdefs.ErrNotFound
}

func TestGatewaysAreChosen(t *testing.T) {
	yes, no := true, false
	request := func(ip4, ip6 *bool, internal bool) network.Network {
		return network.Network{Request: mobynetwork.CreateRequest{EnableIPv4: ip4, EnableIPv6: ip6, Internal: internal}}
	}
	e := &Engine{Options: Options{Networks: known{list: map[string]network.Network{
		"a4": request(nil, nil, false), "b4": request(nil, nil, false), "dual": request(nil, &yes, false), "six": request(&no, &yes, false), "inner": request(nil, &yes, true),
	}}}}
	for _, test := range []struct {
		mode     string
		networks map[string]int // with priorities
		want     gateways
	}{
		{"a4", map[string]int{"a4": 0}, gateways{"a4", ""}},
		{"b4", map[string]int{"a4": 0, "b4": 0}, gateways{"b4", ""}},
		{"bridge", map[string]int{"b4": 0, "a4": 0}, gateways{"a4", ""}},
		{"a4", map[string]int{"a4": 0, "b4": 1}, gateways{"b4", ""}},
		{"a4", map[string]int{"a4": -1, "b4": 0}, gateways{"b4", ""}},
		{"a4", map[string]int{"a4": 0, "dual": 0}, gateways{"a4", "dual"}},
		{"a4", map[string]int{"a4": 0, "six": 9}, gateways{"a4", "six"}},
		{"dual", map[string]int{"dual": 0, "six": 9}, gateways{"dual", "six"}},
		{"inner", map[string]int{"inner": 9}, gateways{}},
		{"inner", map[string]int{"inner": 9, "dual": 0}, gateways{"dual", "dual"}},
		{"gone", map[string]int{"gone": 9, "a4": 0}, gateways{"a4", ""}},
	} {
		r := container.Record{HostConfig: &mobycontainer.HostConfig{NetworkMode: mobycontainer.NetworkMode(test.mode)}, Endpoints: map[string]container.Endpoint{}}
		for name, priority := range test.networks {
			r.Endpoints[name] = container.Endpoint{NetworkID: name, Request: &mobynetwork.EndpointSettings{GwPriority: priority}}
		}
		if got := e.gatewaysOf(r); got != test.want {
			t.Errorf("%s with %v: %+v, want %+v", test.mode, test.networks, got, test.want)
		}
	}
}

func TestPortsGoWithTheRoutes(t *testing.T) {
	at := func(ip string) sdknetwork.Port {
		p := sdknetwork.Port{Proto: "tcp", ContainerPort: 80, HostPort: 8080}
		if ip != "" {
			p.HostIP = netip.MustParseAddr(ip)
		}
		return p
	}
	all := []sdknetwork.Port{at(""), at("127.0.0.1"), at("::1")}
	for _, test := range []struct {
		gateways gateways
		want     string
	}{
		{gateways{"n", "n"}, fmt.Sprint(all)},
		{gateways{"n", ""}, fmt.Sprint(all)}, // the driver says what it cannot do
		{gateways{"other", "other"}, fmt.Sprint([]sdknetwork.Port{})},
		{gateways{"n", "other"}, fmt.Sprint([]sdknetwork.Port{at("0.0.0.0"), at("127.0.0.1")})},
		{gateways{"other", "n"}, fmt.Sprint([]sdknetwork.Port{at("::"), at("::1")})},
	} {
		if got := fmt.Sprint(test.gateways.of("n").ports(slices.Clone(all))); got != test.want {
			t.Errorf("%+v: %s, want %s", test.gateways, got, test.want)
		}
	}
}
