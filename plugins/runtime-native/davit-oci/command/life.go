package command

import (
	"flag"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	mobysignal "github.com/moby/sys/signal"

	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/container"
)

// creation declares the flags that create and run share.
func creation(f *flag.FlagSet) *container.Create {
	o := &container.Create{}
	for _, name := range []string{"bundle", "b"} {
		f.StringVar(&o.Bundle, name, ".", "`directory` with config.json")
	}
	f.StringVar(&o.ConsoleSocket, "console-socket", "", "unix `socket` that gets the terminal's master")
	f.StringVar(&o.PIDFile, "pid-file", "", "`file` for the process's number")
	f.IntVar(&o.PreserveFDs, "preserve-fds", 0, "pass this `number` of further descriptors to the program")
	f.BoolVar(&o.NoPivot, "no-pivot", false, "do not use pivot_root, which a root in a ramdisk does not allow")
	f.BoolVar(&o.NoNewKeyring, "no-new-keyring", false, "do not make a session keyring for the container")
	return o
}

// complete takes from the environment what systemd's socket activation passes.
func complete(o *container.Create, id string) {
	o.ID = id
	// LISTEN_FDS come before those that the caller preserves (sd_listen_fds(3)).
	if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && n > 0 && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		o.ListenFDs = n
		o.PreserveFDs += n
	}
}

func create(a *app, f *flag.FlagSet) func([]string) (int, error) {
	o := creation(f)
	return func(args []string) (int, error) {
		complete(o, args[0])
		if err := a.Create(*o); err != nil {
			return 1, fmt.Errorf("davit-oci create failed: %w", err)
		}
		return 0, nil
	}
}

func run(a *app, f *flag.FlagSet) func([]string) (int, error) {
	o := creation(f)
	for _, name := range []string{"detach", "d"} {
		f.BoolVar(&o.Detach, name, false, "leave the container running")
	}
	keep := f.Bool("keep", false, "do not remove the container when it has ended")
	f.Bool("no-subreaper", false, "accepted for runc's sake: this runtime is never a subreaper")
	return func(args []string) (int, error) {
		complete(o, args[0])
		code, err := a.Run(*o, *keep)
		if err != nil {
			return 1, fmt.Errorf("davit-oci run failed: %w", err)
		}
		return code, nil
	}
}

func start(a *app, _ *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) { return 0, a.Start(args[0]) }
}

func kill(a *app, f *flag.FlagSet) func([]string) (int, error) {
	all := f.Bool("all", false, "send the signal to all processes of the container")
	f.BoolVar(all, "a", false, "as --all")
	return func(args []string) (int, error) {
		number := unix.SIGTERM
		if len(args) > 1 {
			s, err := mobysignal.ParseSignal(args[1])
			if err != nil {
				return 1, fmt.Errorf("unknown signal %q", args[1])
			}
			number = s
		}
		return 0, a.Kill(args[0], number, *all)
	}
}

func remove(a *app, f *flag.FlagSet) func([]string) (int, error) {
	force := f.Bool("force", false, "kill a running container first")
	f.BoolVar(force, "f", false, "as --force")
	return func(args []string) (int, error) { return 0, a.Delete(args[0], *force) }
}

func pause(a *app, _ *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) { return 0, a.Pause(args[0]) }
}

func resume(a *app, _ *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) { return 0, a.Resume(args[0]) }
}
