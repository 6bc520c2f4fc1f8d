package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func networkCommands(a *app) []*cobra.Command {
	return []*cobra.Command{networkCreate(a), networkConnect(a), networkDisconnect(a), networkList(a), networkInspect(a), networkRemove(a), networkPrune(a)}
}

func networkCreate(a *app) *cobra.Command {
	var o client.NetworkCreateOptions
	var subnets, ranges, gateways, aux, options, labels []string
	var ipv4, ipv6 bool
	cmd := &cobra.Command{
		Use: "create [OPTIONS] NETWORK", Short: "Create a network", Args: exactly(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) (err error) {
			o.Options, o.Labels = pairs(options), pairs(labels)
			if cmd.Flags().Changed("ipv4") {
				o.EnableIPv4 = &ipv4
			}
			if cmd.Flags().Changed("ipv6") {
				o.EnableIPv6 = &ipv6
			}
			if o.IPAM, err = ipam(subnets, ranges, gateways, pairs(aux)); err != nil {
				return err
			}
			created, err := api.NetworkCreate(cmd.Context(), args[0], o)
			if err == nil {
				a.say(created.ID)
			}
			return err
		}),
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.Driver, "driver", "d", "", "Driver to manage the Network (default: the engine's)")
	flags.StringArrayVar(&subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	flags.StringArrayVar(&ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	flags.StringArrayVar(&gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	flags.StringArrayVar(&aux, "aux-address", nil, "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	flags.StringArrayVarP(&options, "opt", "o", nil, "Set driver specific options")
	flags.StringArrayVar(&labels, "label", nil, "Set metadata on a network")
	flags.BoolVar(&o.Internal, "internal", false, "Restrict external access to the network")
	flags.BoolVar(&o.Attachable, "attachable", false, "Enable manual container attachment")
	flags.BoolVar(&ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	flags.BoolVar(&ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	return cmd
}

// ipam gives each subnet the range, gateway and auxiliary addresses that lie in it.
func ipam(subnets, ranges, gateways []string, aux map[string]string) (*network.IPAM, error) {
	config := &network.IPAM{Driver: "default"}
	for _, text := range subnets {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %s: %w", text, err)
		}
		config.Config = append(config.Config, network.IPAMConfig{Subnet: prefix})
	}
	for _, text := range ranges {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("invalid ip-range %s: %w", text, err)
		}
		if !place(config, prefix.Addr(), func(c *network.IPAMConfig) { c.IPRange = prefix }) {
			return nil, fmt.Errorf("no matching subnet for range %s", text)
		}
	}
	for _, text := range gateways {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("invalid gateway %s: %w", text, err)
		}
		if !place(config, address, func(c *network.IPAMConfig) { c.Gateway = address }) {
			return nil, fmt.Errorf("no matching subnet for gateway %s", text)
		}
	}
	for name, text := range aux {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("invalid aux-address %s: %w", text, err)
		}
		if !place(config, address, func(c *network.IPAMConfig) {
			if c.AuxAddress == nil {
				c.AuxAddress = map[string]netip.Addr{}
			}
			c.AuxAddress[name] = address
		}) {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", text)
		}
	}
	return config, nil
}

func place(config *network.IPAM, address netip.Addr, set func(*network.IPAMConfig)) bool {
	for i := range config.Config {
		if config.Config[i].Subnet.Contains(address) {
			set(&config.Config[i])
			return true
		}
	}
	return false
}

func networkConnect(a *app) *cobra.Command {
	var aliases, links, options []string
	var ip, ip6, mac string
	var priority int
	cmd := &cobra.Command{
		Use: "connect [OPTIONS] NETWORK CONTAINER", Short: "Connect a container to a network", Args: exactly(2),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			settings := &network.EndpointSettings{Aliases: aliases, Links: links, DriverOpts: pairs(options), GwPriority: priority}
			for _, given := range []struct {
				text string
				set  func(*network.EndpointIPAMConfig, netip.Addr)
			}{{ip, func(c *network.EndpointIPAMConfig, a netip.Addr) { c.IPv4Address = a }}, {ip6, func(c *network.EndpointIPAMConfig, a netip.Addr) { c.IPv6Address = a }}} {
				if given.text == "" {
					continue
				}
				parsed, err := addresses("ip", []string{given.text})
				if err != nil {
					return err
				}
				if settings.IPAMConfig == nil {
					settings.IPAMConfig = &network.EndpointIPAMConfig{}
				}
				given.set(settings.IPAMConfig, parsed[0])
			}
			if mac != "" {
				parsed, err := net.ParseMAC(mac)
				if err != nil {
					return err
				}
				settings.MacAddress = network.HardwareAddr(parsed)
			}
			_, err := api.NetworkConnect(cmd.Context(), args[0], client.NetworkConnectOptions{Container: args[1], EndpointConfig: settings})
			return err
		}),
	}
	cmd.Flags().StringArrayVar(&aliases, "alias", nil, "Add network-scoped alias for the container")
	cmd.Flags().StringArrayVar(&links, "link", nil, "Add link to another container")
	cmd.Flags().StringArrayVar(&options, "driver-opt", nil, "driver options for the network")
	cmd.Flags().IntVar(&priority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	cmd.Flags().StringVar(&ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	cmd.Flags().StringVar(&ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	cmd.Flags().StringVar(&mac, "mac-address", "", "Container MAC address")
	return cmd
}

func networkDisconnect(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "disconnect [OPTIONS] NETWORK CONTAINER", Short: "Disconnect a container from a network", Args: exactly(2),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			_, err := api.NetworkDisconnect(cmd.Context(), args[0], client.NetworkDisconnectOptions{Container: args[1], Force: force})
			return err
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}

func networkList(a *app) *cobra.Command {
	var quiet, full bool
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List networks", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			parsed, err := filterFlags(filters)
			if err != nil {
				return err
			}
			list, err := api.NetworkList(cmd.Context(), client.NetworkListOptions{Filters: parsed})
			if err != nil {
				return err
			}
			var rows []row
			for _, n := range list.Items {
				rows = append(rows, row{
					"ID": shown(n.ID, full), "Name": n.Name, "Driver": n.Driver, "Scope": n.Scope, "Internal": n.Internal,
					"IPv4": n.EnableIPv4, "IPv6": n.EnableIPv6, "CreatedAt": n.Created.Format(time.RFC3339), "Labels": n.Labels,
				})
			}
			l := listing{format: format, columns: []column{{"ID", "NETWORK ID"}, {"Name", "NAME"}, {"Driver", "DRIVER"}, {"Scope", "SCOPE"}},
				all: []column{{"Internal", "INTERNAL"}, {"IPv4", "IPV4"}, {"IPv6", "IPV6"}, {"CreatedAt", "CREATED AT"}, {"Labels", "LABELS"}}}
			if quiet {
				l.quiet = "ID"
			}
			return l.print(a.out, rows)
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	cmd.Flags().BoolVar(&full, "no-trunc", false, "Do not truncate the output")
	cmd.Flags().StringVar(&format, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "Provide filter values (e.g. \"driver=bridge\")")
	return cmd
}

func networkInspect(a *app) *cobra.Command {
	var format string
	var verbose bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NETWORK [NETWORK...]", Short: "Display detailed information on one or more networks", Args: atLeast(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			return inspectAll(a.out, format, args, func(name string) (any, json.RawMessage, error) {
				r, err := api.NetworkInspect(cmd.Context(), name, client.NetworkInspectOptions{Verbose: verbose})
				return r.Network, r.Raw, err
			})
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template: 'json' or a Go template")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Verbose output for diagnostics")
	return cmd
}

func networkRemove(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NETWORK [NETWORK...]", Aliases: []string{"remove"}, Short: "Remove one or more networks", Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, a.saying(func(ctx context.Context, api *client.Client, name string) error {
				_, err := api.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
				if force && isNotFound(err) {
					return nil
				}
				return err
			}))
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}

func networkPrune(a *app) *cobra.Command {
	var p pruneFlags
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove all unused networks", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			filters, ok, err := p.ask(a, "This will remove all custom networks not used by at least one container.")
			if err != nil || !ok {
				return err
			}
			result, err := api.NetworkPrune(cmd.Context(), client.NetworkPruneOptions{Filters: filters})
			if err == nil && len(result.Report.NetworksDeleted) > 0 {
				fmt.Fprintln(a.out, "Deleted Networks:")
				for _, name := range result.Report.NetworksDeleted {
					a.say(name)
				}
			}
			return err
		}),
	}
	p.add(cmd)
	return cmd
}
