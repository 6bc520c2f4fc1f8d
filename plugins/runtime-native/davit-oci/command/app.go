// Package command is the command line of davit-oci: runc's commands, flags,
// output and exit codes. It parses and prints; package container does the work.
package command

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/container"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/journal"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/record"
)

// Version of the program; set by the linker.
var Version = "dev"

// command is one sub-command.
type command struct {
	name, arguments, summary string
	// stopAtID leaves everything after the first argument to the command's program.
	stopAtID bool
	// setup declares flags and answers what runs with the arguments.
	setup func(a *app, f *flag.FlagSet) func(arguments []string) (int, error)
}

func commands() []command {
	return []command{
		{"create", "CONTAINER", "create a container", false, create},
		{"start", "CONTAINER", "execute the program of a created container", false, start},
		{"run", "CONTAINER", "create and start a container", false, run},
		{"exec", "CONTAINER COMMAND [ARG...]", "run another program in a container", true, execute},
		{"state", "CONTAINER", "print the state of a container", false, state},
		{"list", "", "list the containers below the root", false, list},
		{"ps", "CONTAINER [OPTION-OF-PS...]", "list the processes of a container", true, ps},
		{"kill", "CONTAINER [SIGNAL]", "send a signal (default SIGTERM) to a container", false, kill},
		{"delete", "CONTAINER", "remove a container that has ended", false, remove},
		{"pause", "CONTAINER", "freeze all processes of a container", false, pause},
		{"resume", "CONTAINER", "let the processes of a paused container go on", false, resume},
		{"update", "CONTAINER", "change the limits of a container", false, update},
		{"events", "CONTAINER", "print what a container uses", false, events},
		{"checkpoint", "CONTAINER", "write the state of a running container to image files", false, dump},
		{"restore", "CONTAINER", "make a container from the image files of a checkpoint", false, restore},
		{"features", "", "print what this runtime can do", false, showFeatures},
		{"spec", "", "write a config.json to start from", false, spec},
	}
}

// app is the global options and what they stand for.
type app struct {
	*container.Runtime
	journal *journal.Journal
	out     io.Writer
}

// Main runs one command line and answers the exit code.
func Main(args []string) int {
	a := &app{out: os.Stdout}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.SetOutput(io.Discard)
	root := f.String("root", "/run/davit-oci", "`directory` for the state of containers (should be in a tmpfs)")
	log := f.String("log", "", "`file` for errors and warnings; default: standard error")
	format := f.String("log-format", "text", "`format` of the log: text or json")
	debug := f.Bool("debug", false, "log more")
	systemd := f.Bool("systemd-cgroup", false, "make cgroups through systemd; cgroupsPath is \"slice:prefix:name\"")
	f.String("rootless", "auto", "accepted for runc's sake: this runtime does what its user may do")
	criu := f.String("criu", "criu", "`program` that makes checkpoints and restores them")
	version := f.Bool("version", false, "print the version")
	f.BoolVar(version, "v", false, "print the version")
	if err := f.Parse(args[1:]); err != nil {
		return usage(f, err)
	}
	if *version {
		fmt.Fprintf(a.out, "davit-oci version %s\nspec: %s\n", Version, specs.Version)
		return 0
	}
	if f.NArg() == 0 || f.Arg(0) == "help" {
		return usage(f, flag.ErrHelp)
	}
	var err error
	if a.journal, err = journal.Open(*log, *format, *debug); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer a.journal.Close()
	a.Runtime = &container.Runtime{Root: record.Root(*root), Systemd: *systemd, CRIU: *criu, Warn: a.journal.Warn}
	list := commands()
	i := slices.IndexFunc(list, func(c command) bool { return c.name == f.Arg(0) })
	if i < 0 {
		return a.fail(fmt.Errorf("No help topic for '%s'", f.Arg(0)), 3)
	}
	return a.run(list[i], f.Args()[1:])
}

func (a *app) run(c command, args []string) int {
	f := flag.NewFlagSet(c.name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	do := c.setup(a, f)
	rest, err := parse(f, args, c.stopAtID)
	if errors.Is(err, flag.ErrHelp) {
		c.help(a.out, f)
		return 0
	}
	if err != nil {
		return a.fail(fmt.Errorf("Incorrect Usage: %w", err), 1)
	}
	if err := c.check(rest); err != nil {
		return a.fail(err, 1)
	}
	code, err := do(rest)
	if err != nil {
		return a.fail(err, max(code, 1))
	}
	return code
}

// parse takes flags also after the first argument, unless what follows is another
// program's.
func parse(f *flag.FlagSet, args []string, stopAtID bool) ([]string, error) {
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			return nil, err
		}
		if stopAtID || f.NArg() == 0 {
			return append(rest, f.Args()...), nil
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
}

// check compares the number of arguments with what the command names.
func (c command) check(args []string) error {
	words := strings.Fields(c.arguments)
	least, most := 0, len(words)
	for _, word := range words {
		if !strings.HasPrefix(word, "[") {
			least++
		}
		if strings.Contains(word, "...") {
			most = len(args)
		}
	}
	if c.name == "exec" {
		least = 1 // --process says the rest
	}
	switch {
	case least == most && len(args) != least:
		return fmt.Errorf("%s: %q requires exactly %d argument(s)", "davit-oci", c.name, least)
	case len(args) < least:
		return fmt.Errorf("%s: %q requires a minimum of %d argument(s)", "davit-oci", c.name, least)
	case len(args) > most:
		return fmt.Errorf("%s: %q requires a maximum of %d argument(s)", "davit-oci", c.name, most)
	}
	return nil
}

// fail says why on the log and on standard error, as runc does.
func (a *app) fail(err error, code int) int {
	a.journal.Error(err.Error())
	return code
}

func (c command) help(w io.Writer, f *flag.FlagSet) {
	fmt.Fprintf(w, "davit-oci %s - %s\n\nUsage: davit-oci [global options] %s [options] %s\n", c.name, c.summary, c.name, c.arguments)
	f.SetOutput(w)
	f.PrintDefaults()
}

func usage(f *flag.FlagSet, err error) int {
	out, code := io.Writer(os.Stdout), 0
	if !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "Incorrect Usage:", err)
		out, code = os.Stderr, 1
	}
	fmt.Fprint(out, "davit-oci - Open Container Initiative runtime\n\nUsage: davit-oci [global options] command [options] [arguments]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(out, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(out, "\nGlobal options:\n")
	f.SetOutput(out)
	f.PrintDefaults()
	return code
}
