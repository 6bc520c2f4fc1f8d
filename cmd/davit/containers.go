package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// containerCommands are the verbs for containers, which Docker has at the top and
// below "container".
func containerCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		runCommand(a), createCommand(a), startCommand(a), attachCommand(a), execCommand(a), psCommand(a), inspectCommand(a),
		stopCommand(a), restartCommand(a), killCommand(a), removeCommand(a), waitCommand(a), logsCommand(a), topCommand(a), statsCommand(a),
		updateCommand(a), cpCommand(a), portCommand(a),
		a.simple("pause", "Pause all processes within one or more containers", func(ctx context.Context, api *client.Client, name string) error {
			_, err := api.ContainerPause(ctx, name, client.ContainerPauseOptions{})
			return err
		}),
		a.simple("unpause", "Unpause all processes within one or more containers", func(ctx context.Context, api *client.Client, name string) error {
			_, err := api.ContainerUnpause(ctx, name, client.ContainerUnpauseOptions{})
			return err
		}),
		{
			Use: "rename CONTAINER NEW_NAME", Short: "Rename a container", Args: exactly(2),
			RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
				_, err := api.ContainerRename(cmd.Context(), args[0], client.ContainerRenameOptions{NewName: args[1]})
				return err
			}),
		},
		{
			Use: "diff CONTAINER", Short: "Inspect changes to files or directories on a container's filesystem", Args: exactly(1),
			RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
				result, err := api.ContainerDiff(cmd.Context(), args[0], client.ContainerDiffOptions{})
				for _, change := range result.Changes {
					fmt.Fprintln(a.out, change.Kind, change.Path)
				}
				return err
			}),
		},
		commitCommand(a), exportCommand(a),
	}
}

// simple is a command that does one thing for each container and prints it.
func (a *app) simple(name, about string, fn func(ctx context.Context, api *client.Client, name string) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " CONTAINER [CONTAINER...]", Short: about, Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.each(cmd, args, a.saying(fn)) },
	}
}

// saying prints each argument that went well.
func (a *app) saying(fn func(ctx context.Context, api *client.Client, name string) error) func(context.Context, *client.Client, string) error {
	return func(ctx context.Context, api *client.Client, name string) error {
		err := fn(ctx, api, name)
		if err == nil {
			a.say(name)
		}
		return err
	}
}

// timeouts adds -t and -s and reads them.
func timeouts(cmd *cobra.Command) func() (signal string, seconds *int) {
	signal := cmd.Flags().StringP("signal", "s", "", "Signal to send to the container")
	timeout := cmd.Flags().IntP("timeout", "t", 0, "Seconds to wait before killing the container")
	cmd.Flags().IntVar(timeout, "time", 0, "Seconds to wait before killing the container")
	_ = cmd.Flags().MarkHidden("time")
	return func() (string, *int) {
		if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
			return *signal, timeout
		}
		return *signal, nil
	}
}

func stopCommand(a *app) *cobra.Command {
	var given func() (string, *int)
	cmd := a.simple("stop", "Stop one or more running containers", func(ctx context.Context, api *client.Client, name string) error {
		signal, seconds := given()
		_, err := api.ContainerStop(ctx, name, client.ContainerStopOptions{Signal: signal, Timeout: seconds})
		return err
	})
	given = timeouts(cmd)
	return cmd
}

func restartCommand(a *app) *cobra.Command {
	var given func() (string, *int)
	cmd := a.simple("restart", "Restart one or more containers", func(ctx context.Context, api *client.Client, name string) error {
		signal, seconds := given()
		_, err := api.ContainerRestart(ctx, name, client.ContainerRestartOptions{Signal: signal, Timeout: seconds})
		return err
	})
	given = timeouts(cmd)
	return cmd
}

func killCommand(a *app) *cobra.Command {
	var signal string
	cmd := a.simple("kill", "Kill one or more running containers", func(ctx context.Context, api *client.Client, name string) error {
		_, err := api.ContainerKill(ctx, name, client.ContainerKillOptions{Signal: signal})
		return err
	})
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	return cmd
}

func removeCommand(a *app) *cobra.Command {
	var o client.ContainerRemoveOptions
	cmd := a.simple("rm", "Remove one or more containers", func(ctx context.Context, api *client.Client, name string) error {
		_, err := api.ContainerRemove(ctx, strings.Trim(name, "/"), o)
		return err
	})
	cmd.Aliases = []string{"remove"}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	cmd.Flags().BoolVarP(&o.RemoveVolumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	cmd.Flags().BoolVarP(&o.RemoveLinks, "link", "l", false, "Remove the specified link")
	return cmd
}

func waitCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "wait CONTAINER [CONTAINER...]", Short: "Block until one or more containers stop, then print their exit codes", Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.each(cmd, args, func(ctx context.Context, api *client.Client, name string) error {
				code, err := exitCode(api.ContainerWait(ctx, name, client.ContainerWaitOptions{}))
				if err == nil {
					fmt.Fprintln(a.out, code)
				}
				return err
			})
		},
	}
}

func logsCommand(a *app) *cobra.Command {
	o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true}
	cmd := &cobra.Command{
		Use: "logs [OPTIONS] CONTAINER", Short: "Fetch the logs of a container", Args: exactly(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			found, err := api.ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			body, err := api.ContainerLogs(cmd.Context(), found.Container.ID, o)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			if found.Container.Config.Tty {
				_, err = io.Copy(a.out, body)
			} else {
				_, err = stdcopy.StdCopy(a.out, a.err, body)
			}
			return err
		}),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	flags.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	flags.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	flags.StringVar(&o.Since, "since", "", "Show logs since timestamp or relative (e.g. \"42m\")")
	flags.StringVar(&o.Until, "until", "", "Show logs before a timestamp or relative (e.g. \"42m\")")
	flags.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	return cmd
}

func topCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "top CONTAINER [ps OPTIONS]", Short: "Display the running processes of a container", Args: atLeast(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			list, err := api.ContainerTop(cmd.Context(), args[0], client.ContainerTopOptions{Arguments: args[1:]})
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(a.out, 20, 1, 3, ' ', 0)
			fmt.Fprintln(table, strings.Join(list.Titles, "\t"))
			for _, process := range list.Processes {
				fmt.Fprintln(table, strings.Join(process, "\t"))
			}
			return table.Flush()
		}),
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func updateCommand(a *app) *cobra.Command {
	f := &createFlags{}
	var restart string
	cmd := &cobra.Command{Use: "update [OPTIONS] CONTAINER [CONTAINER...]", Short: "Update configuration of one or more containers", Args: atLeast(1)}
	f.addResources(cmd.Flags())
	cmd.Flags().StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
	cmd.Flags().StringArrayVarP(&f.publish, "publish", "p", nil, "Publish these of a container's port(s), and no others; \"\" publishes none")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		resources, err := f.resources()
		if err != nil {
			return err
		}
		o := client.ContainerUpdateOptions{Resources: &resources}
		if restart != "" {
			policy, err := parseRestart(restart)
			if err != nil {
				return err
			}
			o.RestartPolicy = &policy
		}
		publish := cmd.Flags().Changed("publish")
		f.publish = slices.DeleteFunc(f.publish, func(text string) bool { return text == "" })
		if err := f.readPorts(); err != nil {
			return err
		}
		return a.each(cmd, args, a.saying(func(ctx context.Context, api *client.Client, name string) error {
			if publish {
				if err := a.publish(ctx, name, f.host.PortBindings); err != nil {
					return err
				}
			}
			result, err := api.ContainerUpdate(ctx, name, o)
			for _, warning := range result.Warnings {
				fmt.Fprintln(a.err, "WARNING:", warning)
			}
			return err
		}))
	}
	return cmd
}

func portCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "port CONTAINER [PRIVATE_PORT[/PROTO]]", Short: "List port mappings or a specific mapping for the container", Args: between(1, 2),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			found, err := api.ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			wanted := ""
			if len(args) == 2 {
				if wanted = args[1]; !strings.Contains(wanted, "/") {
					wanted += "/tcp"
				}
			}
			var lines []string
			for port, bindings := range found.Container.NetworkSettings.Ports {
				for _, b := range bindings {
					switch address := fmt.Sprintf("%s:%s", hostAddress(b.HostIP.String(), b.HostIP.Is6()), b.HostPort); {
					case wanted == port.String():
						lines = append(lines, address)
					case wanted == "":
						lines = append(lines, fmt.Sprintf("%s -> %s", port, address))
					}
				}
			}
			slices.Sort(lines)
			if wanted != "" && len(lines) == 0 {
				return &status{1, fmt.Sprintf("no public port '%s' published for %s", wanted, args[0])}
			}
			for _, line := range lines {
				a.say(line)
			}
			return nil
		}),
	}
}

func hostAddress(ip string, six bool) string {
	if six {
		return "[" + ip + "]"
	}
	return ip
}

// inspectCommand finds out by itself what a name is, unless told.
func inspectCommand(a *app) *cobra.Command {
	var format, kind string
	var size bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NAME|ID [NAME|ID...]", Short: "Return low-level information on davit objects", Args: atLeast(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			ctx := cmd.Context()
			return inspectAll(a.out, format, args, func(name string) (any, json.RawMessage, error) { return a.lookUp(ctx, api, kind, name, size) })
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template: 'json' or a Go template")
	cmd.Flags().StringVar(&kind, "type", "", "Only inspect objects of the given type (container, image, network, volume)")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	return cmd
}

func (a *app) lookUp(ctx context.Context, api *client.Client, kind, name string, size bool) (any, json.RawMessage, error) {
	lookups := []struct {
		kind string
		get  func() (any, json.RawMessage, error)
	}{
		{"container", func() (any, json.RawMessage, error) {
			r, err := api.ContainerInspect(ctx, name, client.ContainerInspectOptions{Size: size})
			return r.Container, r.Raw, err
		}},
		{"image", func() (any, json.RawMessage, error) { return inspectImage(ctx, api, name, nil) }},
		{"network", func() (any, json.RawMessage, error) {
			r, err := api.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
			return r.Network, r.Raw, err
		}},
		{"volume", func() (any, json.RawMessage, error) {
			r, err := api.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
			return r.Volume, r.Raw, err
		}},
	}
	if kind != "" && !slices.ContainsFunc(lookups, func(l struct {
		kind string
		get  func() (any, json.RawMessage, error)
	}) bool {
		return l.kind == kind
	}) {
		return nil, nil, &status{1, fmt.Sprintf("unknown type: %q", kind)}
	}
	for _, l := range lookups {
		if kind != "" && kind != l.kind {
			continue
		}
		object, raw, err := l.get()
		if err == nil || !isNotFound(err) || kind != "" {
			return object, raw, err
		}
	}
	return nil, nil, &status{1, "Error: No such object: " + name}
}

func containerPrune(a *app) *cobra.Command {
	var p pruneFlags
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove all stopped containers", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			filters, ok, err := p.ask(a, "This will remove all stopped containers.")
			if err != nil || !ok {
				return err
			}
			result, err := api.ContainerPrune(cmd.Context(), client.ContainerPruneOptions{Filters: filters})
			if err != nil {
				return err
			}
			a.pruned("Deleted Containers:", result.Report.ContainersDeleted, result.Report.SpaceReclaimed)
			return nil
		}),
	}
	p.add(cmd)
	return cmd
}
