package command

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/container"
)

// failedExec is the exit code of an exec whose program did not come to run.
const failedExec = 255

// words is a flag that may be given several times.
type words []string

func (w *words) String() string     { return strings.Join(*w, ",") }
func (w *words) Set(s string) error { *w = append(*w, s); return nil }

// execOptions are the flags that say what is executed.
type execOptions struct {
	process, cwd, user, apparmor, label string
	tty, noNewPrivs                     bool
	env, caps, groups                   words
}

func execute(a *app, f *flag.FlagSet) func([]string) (int, error) {
	o, e := &container.Exec{}, &execOptions{}
	f.StringVar(&o.ConsoleSocket, "console-socket", "", "unix `socket` that gets the terminal's master")
	f.StringVar(&o.PIDFile, "pid-file", "", "`file` for the process's number")
	f.StringVar(&o.Cgroup, "cgroup", "", "`path` of the process's cgroup below the container's")
	f.IntVar(&o.PreserveFDs, "preserve-fds", 0, "pass this `number` of further descriptors to the program")
	f.BoolVar(&o.IgnorePaused, "ignore-paused", false, "do it in a paused container, too")
	for _, name := range []string{"detach", "d"} {
		f.BoolVar(&o.Detach, name, false, "do not wait for the program")
	}
	for _, name := range []string{"tty", "t"} {
		f.BoolVar(&e.tty, name, false, "give the program a terminal")
	}
	for _, name := range []string{"process", "p"} {
		f.StringVar(&e.process, name, "", "`file` with the process section of a config.json")
	}
	for _, name := range []string{"user", "u"} {
		f.StringVar(&e.user, name, "", "`UID[:GID]`")
	}
	for _, name := range []string{"env", "e"} {
		f.Var(&e.env, name, "set an environment variable, `NAME=VALUE`")
	}
	for _, name := range []string{"cap", "c"} {
		f.Var(&e.caps, name, "add a `capability`")
	}
	for _, name := range []string{"additional-gids", "g"} {
		f.Var(&e.groups, name, "add a `GID`")
	}
	f.StringVar(&e.cwd, "cwd", "", "working `directory`")
	f.StringVar(&e.apparmor, "apparmor", "", "AppArmor `profile`")
	f.StringVar(&e.label, "process-label", "", "SELinux `label`")
	f.BoolVar(&e.noNewPrivs, "no-new-privs", false, "set no_new_privs")
	f.Bool("no-subreaper", false, "accepted for runc's sake: this runtime is never a subreaper")
	return func(args []string) (int, error) {
		o.ID = args[0]
		base, err := a.Process(o.ID)
		if err == nil {
			o.Process, err = e.build(base, args[1:])
		}
		code := failedExec
		if err == nil {
			code, err = a.Exec(*o)
		}
		if err != nil {
			return failedExec, fmt.Errorf("exec failed: %w", err)
		}
		return code, nil
	}
}

// build is the process that the flags describe: a whole one from a file, or the
// container's own with changes.
func (e *execOptions) build(base *specs.Process, args []string) (*specs.Process, error) {
	if e.process != "" {
		body, err := os.ReadFile(e.process)
		if err != nil {
			return nil, err
		}
		process := &specs.Process{}
		if err := json.Unmarshal(body, process); err != nil {
			return nil, fmt.Errorf("reading %s: %w", e.process, err)
		}
		return process, nil
	}
	if len(args) == 0 {
		return nil, errors.New("process args cannot be empty")
	}
	process := *base
	process.Args, process.Terminal = args, e.tty
	process.Env = slices.Concat(base.Env, e.env)
	if e.cwd != "" {
		process.Cwd = e.cwd
	}
	if e.apparmor != "" {
		process.ApparmorProfile = e.apparmor
	}
	if e.label != "" {
		process.SelinuxLabel = e.label
	}
	process.NoNewPrivileges = base.NoNewPrivileges || e.noNewPrivs
	if len(e.caps) > 0 {
		process.Capabilities = more(base.Capabilities, e.caps)
	}
	return &process, e.identity(&process)
}

// more adds capabilities to those of the container.
func more(base *specs.LinuxCapabilities, add []string) *specs.LinuxCapabilities {
	caps := specs.LinuxCapabilities{}
	if base != nil {
		caps = *base
	}
	caps.Bounding, caps.Effective, caps.Permitted = slices.Concat(caps.Bounding, add), slices.Concat(caps.Effective, add), slices.Concat(caps.Permitted, add)
	return &caps
}

func (e *execOptions) identity(process *specs.Process) error {
	if e.user != "" {
		uid, gid, both := strings.Cut(e.user, ":")
		u, err := strconv.ParseUint(uid, 10, 32)
		if err != nil {
			return fmt.Errorf("parsing %s as int for uid failed: %w", uid, err)
		}
		process.User.UID = uint32(u)
		if both {
			g, err := strconv.ParseUint(gid, 10, 32)
			if err != nil {
				return fmt.Errorf("parsing %s as int for gid failed: %w", gid, err)
			}
			process.User.GID = uint32(g)
		}
	}
	groups := slices.Clone(process.User.AdditionalGids)
	for _, gid := range e.groups {
		g, err := strconv.ParseUint(gid, 10, 32)
		if err != nil {
			return fmt.Errorf("parsing %s as int for gid failed: %w", gid, err)
		}
		groups = append(groups, uint32(g))
	}
	process.User.AdditionalGids = groups
	return nil
}
