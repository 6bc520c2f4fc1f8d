package command

import (
	"flag"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/container"
	"github.com/davit-engine/davit/sdk/monitor/criu"
)

// images are the flags that checkpoint and restore share.
type images struct {
	path, work, cgroups string
	options             criu.Options
	refused             error // the first flag that is not supported
}

func imageFlags(f *flag.FlagSet) *images {
	i := &images{options: criu.Options{LinkRemap: true, CgroupMode: criu.CgroupIgnore, NetworkLock: criu.LockNFTables}}
	f.StringVar(&i.path, "image-path", "checkpoint", "`directory` of the images")
	f.StringVar(&i.work, "work-path", "", "`directory` for CRIU's log; default: the container's own")
	f.BoolVar(&i.options.TCPEstablished, "tcp-established", false, "take established TCP connections along")
	f.BoolVar(&i.options.ExtUnixSockets, "ext-unix-sk", false, "allow connections to unix sockets outside")
	f.BoolVar(&i.options.FileLocks, "file-locks", false, "take file locks along")
	f.BoolVar(&i.options.ShellJob, "shell-job", false, "allow a session and a terminal that are not the container's")
	f.StringVar(&i.cgroups, "manage-cgroups-mode", criu.CgroupIgnore, "`mode`: ignore, no other is supported")
	i.refuse(f, "lazy-pages", true)
	i.refuse(f, "auto-dedup", true)
	i.refuse(f, "empty-ns", false)
	return i
}

// refuse declares a flag of runc's that is not supported.
func (i *images) refuse(f *flag.FlagSet, name string, boolean bool) {
	refuse := func(value string) error {
		if wanted, err := strconv.ParseBool(value); boolean && err == nil && !wanted {
			return nil
		}
		if i.refused == nil {
			i.refused = unsupported("--" + name)
		}
		return nil
	}
	if boolean {
		f.BoolFunc(name, "not supported", refuse)
		return
	}
	f.Func(name, "not supported", refuse)
}

func unsupported(what string) error {
	return fmt.Errorf("%s is not supported by davit-oci: %w", what, errdefs.ErrNotImplemented)
}

// complete checks the flags and makes the directory's path absolute.
func (i *images) complete() (err error) {
	switch {
	case i.refused != nil:
		return i.refused
	case i.cgroups == criu.CgroupIgnore:
	case criu.KnownCgroupMode(i.cgroups):
		return unsupported("--manage-cgroups-mode " + i.cgroups)
	default:
		return fmt.Errorf("Invalid manage cgroups mode: %s", i.cgroups)
	}
	i.path, err = filepath.Abs(i.path)
	return err
}

func dump(a *app, f *flag.FlagSet) func([]string) (int, error) {
	i := imageFlags(f)
	f.BoolVar(&i.options.LeaveRunning, "leave-running", false, "let the container go on")
	i.refuse(f, "pre-dump", true)
	i.refuse(f, "parent-path", false)
	i.refuse(f, "page-server", false)
	i.refuse(f, "status-fd", false)
	return func(args []string) (int, error) {
		if err := i.complete(); err != nil {
			return 1, err
		}
		return 0, a.Checkpoint(container.Checkpoint{ID: args[0], Images: i.path, Work: i.work, Options: i.options})
	}
}

func restore(a *app, f *flag.FlagSet) func([]string) (int, error) {
	o := &container.Restore{}
	i := imageFlags(f)
	for _, name := range []string{"bundle", "b"} {
		f.StringVar(&o.Bundle, name, ".", "`directory` with config.json")
	}
	for _, name := range []string{"detach", "d"} {
		f.BoolVar(&o.Detach, name, false, "leave the container running")
	}
	f.StringVar(&o.ConsoleSocket, "console-socket", "", "unix `socket` that gets the terminal's master")
	f.StringVar(&o.PIDFile, "pid-file", "", "`file` for the process's number")
	f.Bool("no-subreaper", false, "accepted for runc's sake: this runtime is never a subreaper")
	i.refuse(f, "no-pivot", true)
	i.refuse(f, "lsm-profile", false)
	i.refuse(f, "lsm-mount-context", false)
	return func(args []string) (int, error) {
		if err := i.complete(); err != nil {
			return 1, err
		}
		o.ID, o.Images, o.Work, o.Options = args[0], i.path, i.work, i.options
		return a.Restore(*o)
	}
}
