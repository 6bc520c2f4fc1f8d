package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func psCommand(a *app) *cobra.Command {
	var all, latest, quiet, full, size bool
	var last int
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use: "ps [OPTIONS]", Short: "List containers", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			parsed, err := filterFlags(filters)
			if err != nil {
				return err
			}
			o := client.ContainerListOptions{All: all, Size: size, Limit: last, Filters: parsed}
			if latest {
				o.Limit = 1
			}
			if o.Limit > 0 {
				o.All = true
			}
			list, err := api.ContainerList(cmd.Context(), o)
			if err != nil {
				return err
			}
			rows := make([]row, 0, len(list.Items))
			for _, c := range list.Items {
				rows = append(rows, containerRow(c, full))
			}
			l := listing{format: format, columns: []column{
				{"ID", "CONTAINER ID"}, {"Image", "IMAGE"}, {"Command", "COMMAND"}, {"RunningFor", "CREATED"}, {"Status", "STATUS"}, {"Ports", "PORTS"}, {"Names", "NAMES"},
			}, all: []column{{"CreatedAt", "CREATED AT"}, {"Labels", "LABELS"}, {"Mounts", "MOUNTS"}, {"Networks", "NETWORKS"}, {"Size", "SIZE"}, {"State", "STATE"}, {"LocalVolumes", "LOCAL VOLUMES"}}}
			if size {
				l.columns = append(l.columns, column{"Size", "SIZE"})
			}
			if quiet {
				l.quiet = "ID"
			}
			return l.print(a.out, rows)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	flags.BoolVarP(&latest, "latest", "l", false, "Show the latest created container (includes all states)")
	flags.IntVarP(&last, "last", "n", -1, "Show n last created containers (includes all states)")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Only display container IDs")
	flags.BoolVar(&full, "no-trunc", false, "Don't truncate output")
	flags.BoolVarP(&size, "size", "s", false, "Display total file sizes")
	flags.StringVar(&format, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template")
	flags.StringArrayVarP(&filters, "filter", "f", nil, "Filter output based on conditions provided")
	return cmd
}

func containerRow(c container.Summary, full bool) row {
	command := c.Command
	if !full && len([]rune(command)) > 20 {
		command = string([]rune(command)[:19]) + "…"
	}
	names := make([]string, 0, len(c.Names))
	for _, name := range c.Names {
		names = append(names, strings.TrimPrefix(name, "/"))
	}
	var mounts, networks []string
	volumes := 0
	for _, m := range c.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		} else {
			volumes++
		}
		mounts = append(mounts, name)
	}
	if c.NetworkSettings != nil {
		for name := range c.NetworkSettings.Networks {
			networks = append(networks, name)
		}
	}
	slices.Sort(networks)
	created := time.Unix(c.Created, 0)
	size := units.HumanSizeWithPrecision(float64(c.SizeRw), 3)
	if c.SizeRootFs > 0 {
		size += " (virtual " + units.HumanSizeWithPrecision(float64(c.SizeRootFs), 3) + ")"
	}
	return row{
		"ID": shown(c.ID, full), "Image": c.Image, "Command": strconv.Quote(command), "RunningFor": ago(created),
		"CreatedAt": created.Format("2006-01-02 15:04:05 -0700 MST"), "Status": c.Status, "State": string(c.State), "Ports": ports(c.Ports),
		"Names": strings.Join(names, ","), "Labels": joined(c.Labels), "Mounts": strings.Join(mounts, ","),
		"Networks": strings.Join(networks, ","), "Size": size, "LocalVolumes": strconv.Itoa(volumes),
	}
}

// joined is labels as "key=value,…", in order.
func joined(labels map[string]string) string {
	list := make([]string, 0, len(labels))
	for key, value := range labels {
		list = append(list, key+"="+value)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

func ago(t time.Time) string { return units.HumanDuration(time.Since(t)) + " ago" }

// ports shows mappings in order, with neighbours joined to ranges.
func ports(list []container.PortSummary) string {
	type key struct{ address, protocol string }
	type span struct{ public, private, last uint16 }
	var order []key
	spans := map[key][]span{}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b container.PortSummary) int {
		if a.PrivatePort != b.PrivatePort {
			return int(a.PrivatePort) - int(b.PrivatePort)
		}
		return strings.Compare(a.IP.String(), b.IP.String())
	})
	for _, p := range list {
		k := key{protocol: p.Type}
		if p.IP.IsValid() && p.PublicPort > 0 {
			k.address = hostAddress(p.IP.String(), p.IP.Is6())
		}
		if spans[k] == nil {
			order = append(order, k)
		}
		if n := len(spans[k]); n > 0 {
			s := &spans[k][n-1]
			follows := p.PrivatePort == s.last+1 && (p.PublicPort == 0 && s.public == 0 || p.PublicPort == s.public+s.last-s.private+1)
			if follows {
				s.last = p.PrivatePort
				continue
			}
		}
		spans[k] = append(spans[k], span{p.PublicPort, p.PrivatePort, p.PrivatePort})
	}
	between := func(first, count uint16) string {
		if count == 0 {
			return strconv.Itoa(int(first))
		}
		return fmt.Sprintf("%d-%d", first, first+count)
	}
	var parts []string
	for _, k := range order {
		for _, s := range spans[k] {
			text := between(s.private, s.last-s.private) + "/" + k.protocol
			if k.address != "" {
				text = fmt.Sprintf("%s:%s->%s", k.address, between(s.public, s.last-s.private), text)
			}
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, ", ")
}
