package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func volumeCommands(a *app) []*cobra.Command {
	return []*cobra.Command{volumeCreate(a), volumeList(a), volumeInspect(a), volumeRemove(a), volumePrune(a), volumeClone(a), volumeRename(a), volumeResize(a)}
}

func volumeCreate(a *app) *cobra.Command {
	var o client.VolumeCreateOptions
	var options, labels []string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] [VOLUME]", Short: "Create a volume", Args: between(0, 1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			if len(args) == 1 {
				if o.Name != "" {
					return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
				}
				o.Name = args[0]
			}
			o.DriverOpts, o.Labels = pairs(options), pairs(labels)
			created, err := api.VolumeCreate(cmd.Context(), o)
			if err == nil {
				a.say(created.Volume.Name)
			}
			return err
		}),
	}
	cmd.Flags().StringVarP(&o.Driver, "driver", "d", "", "Specify volume driver name (default: the engine's)")
	cmd.Flags().StringVar(&o.Name, "name", "", "Specify volume name")
	_ = cmd.Flags().MarkHidden("name")
	cmd.Flags().StringArrayVarP(&options, "opt", "o", nil, "Set driver specific options")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "Set metadata for a volume")
	return cmd
}

func volumeList(a *app) *cobra.Command {
	var quiet bool
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List volumes", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			parsed, err := filterFlags(filters)
			if err != nil {
				return err
			}
			list, err := api.VolumeList(cmd.Context(), client.VolumeListOptions{Filters: parsed})
			if err != nil {
				return err
			}
			var rows []row
			for _, v := range list.Items {
				rows = append(rows, volumeRow(v))
			}
			l := listing{format: format, columns: []column{{"Driver", "DRIVER"}, {"Name", "VOLUME NAME"}}, all: []column{{"Mountpoint", "MOUNTPOINT"}, {"Scope", "SCOPE"}, {"Labels", "LABELS"}, {"Links", "LINKS"}, {"Size", "SIZE"}}}
			if quiet {
				l.quiet = "Name"
			}
			return l.print(a.out, rows)
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	cmd.Flags().StringVar(&format, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "Provide filter values (e.g. \"dangling=true\")")
	return cmd
}

func volumeInspect(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] VOLUME [VOLUME...]", Short: "Display detailed information on one or more volumes", Args: atLeast(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			return inspectAll(a.out, format, args, func(name string) (any, json.RawMessage, error) {
				r, err := api.VolumeInspect(cmd.Context(), name, client.VolumeInspectOptions{})
				return r.Volume, r.Raw, err
			})
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template: 'json' or a Go template")
	return cmd
}

func volumeRemove(a *app) *cobra.Command {
	var o client.VolumeRemoveOptions
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] VOLUME [VOLUME...]", Aliases: []string{"remove"}, Short: "Remove one or more volumes", Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, a.saying(func(ctx context.Context, api *client.Client, name string) error {
				_, err := api.VolumeRemove(ctx, name, o)
				return err
			}))
		},
	}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}

func volumePrune(a *app) *cobra.Command {
	var p pruneFlags
	var all bool
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused local volumes", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			what := "This will remove anonymous local volumes not used by at least one container."
			if all {
				what = "This will remove all local volumes not used by at least one container."
			}
			filters, ok, err := p.ask(a, what)
			if err != nil || !ok {
				return err
			}
			result, err := api.VolumePrune(cmd.Context(), client.VolumePruneOptions{All: all, Filters: filters})
			if err != nil {
				return err
			}
			a.pruned("Deleted Volumes:", result.Report.VolumesDeleted, result.Report.SpaceReclaimed)
			return nil
		}),
	}
	p.add(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	return cmd
}
