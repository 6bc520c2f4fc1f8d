// Davit-network-bridge is davit's default network driver plugin.
package main

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/plugins/network-bridge/bridge"
	"github.com/davit-engine/davit/sdk/ipam"
	"github.com/davit-engine/davit/sdk/network"
	"github.com/davit-engine/davit/sdk/plugin"
)

// version is that of the manifest.
const version = "0.1.0"

// driver is configured after the plugin has started to serve.
type driver struct{ *bridge.Driver }

func (d *driver) configure(_ context.Context, s plugin.Setup) error {
	config := bridge.Config{}
	config.Bridge, _ = s.Config["bridge"].(string)
	config.Table, _ = s.Config["table"].(string)
	if mtu, ok := s.Config["mtu"].(int64); ok {
		config.MTU = int(mtu)
	}
	pools, _ := s.Config["pools"].([]string)
	for _, text := range pools {
		block, err := ipam.ParseBlock(text)
		if err != nil {
			return fmt.Errorf("config key pools: %w", err)
		}
		config.Pools = append(config.Pools, block)
	}
	switch published, _ := s.Config["published"].(string); published {
	case "", "open":
	case "restricted":
		config.Restricted = true
	default:
		return fmt.Errorf("config key published: %q is neither open nor restricted: %w", published, errdefs.ErrInvalidArgument)
	}
	var err error
	d.Driver, err = bridge.New(s.Root, config, s.Logger)
	return err
}

func main() {
	d := &driver{}
	plugin.Serve(plugin.Plugin{
		Name: "network-bridge", Version: version, Features: []string{network.FeatureIPv6, network.FeaturePorts},
		Configure: d.configure, Network: d,
	})
}
