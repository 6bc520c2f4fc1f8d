package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/davit-engine/davit/config"
)

func systemCommands(a *app) []*cobra.Command {
	return []*cobra.Command{infoCommand(a), versionCommand(a), eventsCommand(a)}
}

func versionCommand(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "version [OPTIONS]", Short: "Show the davit version information", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			type clientVersion struct{ Version, APIVersion, GoVersion, Os, Arch string }
			view := struct {
				Client clientVersion
				Server *client.ServerVersionResult
			}{Client: clientVersion{config.Version, apiVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH}}
			api, err := a.engine()
			var server client.ServerVersionResult
			if err == nil {
				if server, err = api.ServerVersion(cmd.Context(), client.ServerVersionOptions{}); err == nil {
					view.Server = &server
				}
			}
			switch format {
			case "":
				fmt.Fprintf(a.out, "Client:\n Version:      %s\n API version:  %s\n Go version:   %s\n OS/Arch:      %s/%s\n", config.Version, apiVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				if view.Server != nil {
					fmt.Fprintf(a.out, "\nServer: %s\n Version:      %s\n API version:  %s (minimum version %s)\n OS/Arch:      %s/%s\n", server.Platform.Name, server.Version, server.APIVersion, server.MinAPIVersion, server.Os, server.Arch)
					for _, c := range server.Components {
						fmt.Fprintf(a.out, " %s: %s\n", c.Name, c.Version)
					}
				}
			case "json":
				if err := json.NewEncoder(a.out).Encode(view); err != nil {
					return err
				}
			default:
				if err := execute(a.out, unescape(format)+"\n", view); err != nil {
					return err
				}
			}
			return explain(err)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template: 'json' or a Go template")
	return cmd
}

func infoCommand(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "info [OPTIONS]", Short: "Display system-wide information", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			result, err := api.Info(cmd.Context(), client.InfoOptions{})
			if err != nil {
				return err
			}
			i := result.Info
			switch format {
			case "json":
				return json.NewEncoder(a.out).Encode(i)
			case "":
			default:
				return execute(a.out, unescape(format)+"\n", i)
			}
			fmt.Fprintf(a.out, "Containers: %d\n Running: %d\n Paused: %d\n Stopped: %d\nImages: %d\n", i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, i.Images)
			fmt.Fprintf(a.out, "Server Version: %s\nStorage Driver: %s\n", i.ServerVersion, i.Driver)
			for _, pair := range i.DriverStatus {
				fmt.Fprintf(a.out, " %s: %s\n", pair[0], pair[1])
			}
			fmt.Fprintf(a.out, "Logging Driver: %s\nCgroup Driver: %s\nCgroup Version: %s\n", i.LoggingDriver, i.CgroupDriver, i.CgroupVersion)
			fmt.Fprintf(a.out, "Plugins:\n Volume: %s\n Network: %s\n", strings.Join(i.Plugins.Volume, " "), strings.Join(i.Plugins.Network, " "))
			names := make([]string, 0, len(i.Runtimes))
			for name := range i.Runtimes {
				names = append(names, name)
			}
			slices.Sort(names)
			fmt.Fprintf(a.out, "Runtimes: %s\nDefault Runtime: %s\nSecurity Options:\n", strings.Join(names, " "), i.DefaultRuntime)
			for _, option := range i.SecurityOptions {
				fmt.Fprintf(a.out, " %s\n", option)
			}
			fmt.Fprintf(a.out, "Kernel Version: %s\nOperating System: %s\nOSType: %s\nArchitecture: %s\nCPUs: %d\nTotal Memory: %s\nName: %s\nID: %s\nRoot Dir: %s\n",
				i.KernelVersion, i.OperatingSystem, i.OSType, i.Architecture, i.NCPU, units.BytesSize(float64(i.MemTotal)), i.Name, i.ID, i.DockerRootDir)
			for _, warning := range i.Warnings {
				fmt.Fprintln(a.err, warning)
			}
			return nil
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template: 'json' or a Go template")
	return cmd
}

func eventsCommand(a *app) *cobra.Command {
	var o client.EventsListOptions
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use: "events [OPTIONS]", Short: "Get real time events from the server", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			parsed, err := filterFlags(filters)
			if err != nil {
				return err
			}
			o.Filters = parsed
			stream := api.Events(cmd.Context(), o)
			for {
				select {
				case m := <-stream.Messages:
					if err := a.showEvent(m, format); err != nil {
						return err
					}
				case err := <-stream.Err:
					if err != nil && err.Error() != "EOF" && cmd.Context().Err() == nil {
						return err
					}
					return nil
				}
			}
		}),
	}
	cmd.Flags().StringVar(&o.Since, "since", "", "Show all events created since timestamp")
	cmd.Flags().StringVar(&o.Until, "until", "", "Stream events until this timestamp")
	cmd.Flags().StringVar(&format, "format", "", "Format output using a custom template: 'json' or a Go template")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "Filter output based on conditions provided")
	return cmd
}

func (a *app) showEvent(m events.Message, format string) error {
	switch format {
	case "":
	case "json":
		return json.NewEncoder(a.out).Encode(m)
	default:
		return execute(a.out, unescape(format)+"\n", m)
	}
	var attributes []string
	for key, value := range m.Actor.Attributes {
		attributes = append(attributes, key+"="+value)
	}
	slices.Sort(attributes)
	line := fmt.Sprintf("%s %s %s %s", time.Unix(0, m.TimeNano).Format("2006-01-02T15:04:05.000000000Z07:00"), m.Type, m.Action, m.Actor.ID)
	if len(attributes) > 0 {
		line += " (" + strings.Join(attributes, ", ") + ")"
	}
	a.say(line)
	return nil
}

// systemPrune removes what nothing uses, in the order in which one frees the next.
func systemPrune(a *app) *cobra.Command {
	var p pruneFlags
	var all, volumes bool
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused data", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			filters, ok, err := p.ask(a, "This will remove all stopped containers, all networks not used by at least one container, and unused images.")
			if err != nil || !ok {
				return err
			}
			ctx := cmd.Context()
			containers, err := api.ContainerPrune(ctx, client.ContainerPruneOptions{Filters: filters})
			if err != nil {
				return err
			}
			networks, err := api.NetworkPrune(ctx, client.NetworkPruneOptions{Filters: filters})
			if err != nil {
				return err
			}
			total := containers.Report.SpaceReclaimed
			if volumes {
				result, err := api.VolumePrune(ctx, client.VolumePruneOptions{Filters: filters})
				if err != nil {
					return err
				}
				total += result.Report.SpaceReclaimed
			}
			filters = filters.Clone()
			filters["dangling"] = map[string]bool{fmt.Sprint(!all): true}
			images, err := api.ImagePrune(ctx, client.ImagePruneOptions{Filters: filters})
			if err != nil {
				return err
			}
			deleted := slices.Concat(containers.Report.ContainersDeleted, networks.Report.NetworksDeleted)
			a.deleted(images.Report.ImagesDeleted)
			a.pruned("Deleted Containers and Networks:", deleted, total+images.Report.SpaceReclaimed)
			return nil
		}),
	}
	p.add(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused images not just dangling ones")
	cmd.Flags().BoolVar(&volumes, "volumes", false, "Prune anonymous volumes")
	return cmd
}
