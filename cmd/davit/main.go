// Davit is the command-line client of davitd. It speaks Docker's words: commands,
// flags, output and exit codes are those of the docker command, the API is the
// Docker Engine API. It holds no state and starts in a few milliseconds.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	os.Exit(a.exit(root(a).ExecuteContext(ctx)))
}

// status is an error that decides the exit code. Without a text, everything has
// been said already.
type status struct {
	code int
	text string
}

func (s *status) Error() string { return s.text }

// exit prints an error once and answers the exit code.
func (a *app) exit(err error) int {
	if err == nil {
		return 0
	}
	code := 1
	var known *status
	if errors.As(err, &known) {
		code = known.code
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(a.err, text)
	}
	return code
}

// root is the tree of commands. Each file of this package adds its own.
func root(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "davit [OPTIONS] COMMAND [ARG...]", Short: "A container engine of drivers that can be swapped",
		SilenceErrors: true, SilenceUsage: true, TraverseChildren: true, Version: config.Version,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              unknownCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetVersionTemplate("davit version {{.Version}}\n")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &status{125, fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information", strings.TrimSuffix(err.Error(), "."), cmd.UseLine(), cmd.CommandPath())}
	})
	cmd.Flags().StringVarP(&a.host, "host", "H", "", "Daemon socket to connect to (default $DAVIT_HOST, $DOCKER_HOST, "+defaultHost+")")
	cmd.PersistentFlags().Bool("help", false, "Print usage")
	cmd.AddCommand(containerCommands(a)...)
	cmd.AddCommand(imageCommands(a)...)
	cmd.AddCommand(systemCommands(a)...)
	cmd.AddCommand(
		group("container", "Manage containers", append(containerCommands(a), renamed(psCommand(a), "ls", "list", "ps"), containerPrune(a))...),
		group("image", "Manage images", append(imageSubcommands(a), imagePrune(a))...),
		group("manifest", "Look at image manifests of registries", manifestCommands(a)...),
		group("network", "Manage networks", networkCommands(a)...),
		group("checkpoint", "Manage checkpoints", checkpointCommands(a)...),
		group("volume", "Manage volumes", volumeCommands(a)...),
		group("plugin", "Look at driver plugins", pluginCommands(a)...),
		group("system", "Manage davit", append([]*cobra.Command{infoCommand(a), eventsCommand(a)}, dfCommand(a), systemPrune(a), checkCommand(a))...),
		doctorCommand(a),
	)
	return cmd
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &status{1, fmt.Sprintf("%s: unknown command: %s %s\n\nRun '%s --help' for more information", cmd.Root().Name(), cmd.CommandPath(), args[0], cmd.CommandPath())}
}

// group is a command that only has subcommands.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Args: unknownCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(commands...)
	return cmd
}

func renamed(cmd *cobra.Command, name string, aliases ...string) *cobra.Command {
	_, rest, _ := strings.Cut(cmd.Use, " ")
	cmd.Use, cmd.Aliases = strings.TrimSpace(name+" "+rest), aliases
	return cmd
}

// exactly, atLeast and noArgs refuse a wrong number of arguments in Docker's
// words.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return &status{1, fmt.Sprintf("%q requires exactly %d argument%s.\nSee '%s --help'.", cmd.CommandPath(), n, plural(n), cmd.CommandPath())}
	}
}

func atLeast(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return &status{1, fmt.Sprintf("%q requires at least %d argument%s.\nSee '%s --help'.", cmd.CommandPath(), n, plural(n), cmd.CommandPath())}
	}
}

func between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && len(args) <= high {
			return nil
		}
		return &status{1, fmt.Sprintf("%q requires at least %d and at most %d arguments.\nSee '%s --help'.", cmd.CommandPath(), low, high, cmd.CommandPath())}
	}
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}
