package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func runCommand(a *app) *cobra.Command {
	f := &createFlags{}
	cmd := &cobra.Command{
		Use: "run [OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create and run a new container from an image", Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.engine()
			if err != nil {
				return err
			}
			return a.run(cmd.Context(), api, f, args)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().BoolVarP(&f.detach, "detach", "d", false, "Run container in background and print container ID")
	cmd.Flags().StringVar(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	cmd.Flags().BoolVar(&f.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	return cmd
}

func createCommand(a *app) *cobra.Command {
	f := &createFlags{}
	cmd := &cobra.Command{
		Use: "create [OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create a new container", Args: atLeast(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			f.attached()
			id, err := a.create(cmd.Context(), api, f, args)
			if err == nil {
				a.say(id)
			}
			return err
		}),
	}
	f.add(cmd.Flags())
	return cmd
}

// attached fills in which streams the container is attached to.
func (f *createFlags) attached() (in, out, err bool) {
	out, err = true, true
	in = f.interactive
	if len(f.attach) > 0 {
		has := func(name string) bool {
			return slices.ContainsFunc(f.attach, func(given string) bool { return strings.EqualFold(given, name) })
		}
		in, out, err = has("stdin"), has("stdout"), has("stderr")
		f.interactive = f.interactive || in
	}
	if f.detach {
		in, out, err = false, false, false
	}
	f.config.AttachStdin, f.config.AttachStdout, f.config.AttachStderr = in, out, err
	f.config.StdinOnce = f.interactive && !f.detach
	return in, out, err
}

// runFailed is an error before there is a container's exit code: 125, and 126
// and 127 where the command is at fault.
func runFailed(err error) error {
	text := explain(err).Error()
	code := 125
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"), strings.Contains(text, "system cannot find the file specified"):
		code = 127
	case strings.Contains(text, "permission denied"), strings.Contains(text, "is a directory"):
		code = 126
	}
	return &status{code, "davit: " + text + "\n\nRun 'davit run --help' for more information"}
}

func (a *app) run(ctx context.Context, api *client.Client, f *createFlags, args []string) error {
	in, out, errOut := f.attached()
	if err := a.checkTerminal(in, f.tty); err != nil {
		return err
	}
	s := &streams{app: a, tty: f.tty, stdin: in, detachKeys: f.detachKeys}
	if out {
		s.out = a.out
	}
	if errOut {
		s.err = a.err
	}
	height, width := s.terminalSize()
	f.host.ConsoleSize = [2]uint{height, width}
	id, err := a.create(ctx, api, f, args)
	if err != nil {
		return runFailed(err)
	}
	if f.detach {
		if _, err := api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
			a.say(id)
			return runFailed(err)
		}
		a.say(id)
		return nil
	}
	code, err := a.startAttached(ctx, api, s, id, f.rm, f.sigProxy)
	if err != nil {
		return runFailed(err)
	}
	return exitWith(code)
}

func exitWith(code int) error {
	if code == 0 {
		return nil
	}
	return &status{code: code}
}

// startAttached starts a container with its streams here, and answers its exit
// code, or 0 if the user detached.
func (a *app) startAttached(ctx context.Context, api *client.Client, s *streams, id string, removed, proxy bool) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var finished chan error
	if s.stdin || s.out != nil || s.err != nil {
		conn, err := api.ContainerAttach(ctx, id, client.ContainerAttachOptions{
			Stream: true, Stdin: s.stdin, Stdout: s.out != nil, Stderr: s.err != nil, DetachKeys: s.detachKeys,
		})
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		finished = make(chan error, 1)
		go func() { finished <- s.copy(conn.HijackedResponse) }()
	}
	condition := container.WaitConditionNextExit
	if removed {
		condition = container.WaitConditionRemoved
	}
	wait := api.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: condition})
	if proxy {
		s.forwardSignals(ctx, api, id)
	}
	if _, err := api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		cancel()
		return 0, err
	}
	s.followSize(ctx, func(ctx context.Context, height, width uint) error {
		_, err := api.ContainerResize(ctx, id, client.ContainerResizeOptions{Height: height, Width: width})
		return err
	})
	if finished != nil {
		if err := <-finished; err != nil {
			if errors.Is(err, errDetached) {
				return 0, nil
			}
			return 0, err
		}
	}
	return exitCode(wait)
}

// exitCode waits for a container's end.
func exitCode(wait client.ContainerWaitResult) (int, error) {
	select {
	case result := <-wait.Result:
		if result.Error != nil {
			return 0, errors.New(result.Error.Message)
		}
		return int(result.StatusCode), nil
	case err := <-wait.Error:
		return 0, err
	}
}

func startCommand(a *app) *cobra.Command {
	var attach, interactive bool
	var keys string
	var proxy bool
	var o client.ContainerStartOptions
	cmd := &cobra.Command{
		Use: "start [OPTIONS] CONTAINER [CONTAINER...]", Short: "Start one or more stopped containers", Args: atLeast(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			if o.CheckpointID != "" {
				switch {
				case attach || interactive:
					return &status{1, "you cannot attach to a container that starts from a checkpoint"}
				case len(args) > 1:
					return &status{1, "you cannot restore multiple containers at once"}
				}
			}
			if !attach && !interactive {
				return a.each(cmd, args, func(ctx context.Context, api *client.Client, name string) error {
					_, err := api.ContainerStart(ctx, name, o)
					if err == nil {
						a.say(name)
					}
					return err
				})
			}
			if len(args) > 1 {
				return &status{1, "you cannot start and attach multiple containers at once"}
			}
			found, err := api.ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			c := found.Container
			s := &streams{app: a, tty: c.Config.Tty, stdin: interactive && c.Config.OpenStdin, detachKeys: keys, out: a.out, err: a.err}
			if err := a.checkTerminal(s.stdin, s.tty); err != nil {
				return err
			}
			code, err := a.startAttached(cmd.Context(), api, s, c.ID, c.HostConfig.AutoRemove, proxy)
			if err != nil {
				return err
			}
			return exitWith(code)
		}),
	}
	cmd.Flags().StringVar(&o.CheckpointID, "checkpoint", "", "Restore from this checkpoint")
	cmd.Flags().StringVar(&o.CheckpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "Attach container's STDIN")
	cmd.Flags().StringVar(&keys, "detach-keys", "", "Override the key sequence for detaching a container")
	cmd.Flags().BoolVar(&proxy, "sig-proxy", true, "Proxy all received signals to the process")
	return cmd
}

func attachCommand(a *app) *cobra.Command {
	var noStdin, proxy bool
	var keys string
	cmd := &cobra.Command{
		Use: "attach [OPTIONS] CONTAINER", Short: "Attach local standard input, output, and error streams to a running container", Args: exactly(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			found, err := api.ContainerInspect(ctx, args[0], client.ContainerInspectOptions{})
			if err != nil {
				return err
			}
			c := found.Container
			switch {
			case !c.State.Running:
				return &status{1, "cannot attach to a stopped container, start it first"}
			case c.State.Paused:
				return &status{1, "cannot attach to a paused container, unpause it first"}
			}
			s := &streams{app: a, tty: c.Config.Tty, stdin: !noStdin && c.Config.OpenStdin, detachKeys: keys, out: a.out, err: a.err}
			if err := a.checkTerminal(s.stdin, s.tty); err != nil {
				return err
			}
			wait := api.ContainerWait(ctx, c.ID, client.ContainerWaitOptions{})
			conn, err := api.ContainerAttach(ctx, c.ID, client.ContainerAttachOptions{Stream: true, Stdin: s.stdin, Stdout: true, Stderr: true, DetachKeys: keys})
			if err != nil {
				return err
			}
			defer conn.Close()
			if proxy {
				s.forwardSignals(ctx, api, c.ID)
			}
			s.followSize(ctx, func(ctx context.Context, height, width uint) error {
				_, err := api.ContainerResize(ctx, c.ID, client.ContainerResizeOptions{Height: height, Width: width})
				return err
			})
			if err := s.copy(conn.HijackedResponse); err != nil {
				if errors.Is(err, errDetached) {
					return nil
				}
				return err
			}
			code, err := exitCode(wait)
			if err != nil {
				return err
			}
			return exitWith(code)
		}),
	}
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "Do not attach STDIN")
	cmd.Flags().StringVar(&keys, "detach-keys", "", "Override the key sequence for detaching a container")
	cmd.Flags().BoolVar(&proxy, "sig-proxy", true, "Proxy all received signals to the process")
	return cmd
}

func execCommand(a *app) *cobra.Command {
	var o client.ExecCreateOptions
	var detach, interactive bool
	var env []string
	var envFile string
	cmd := &cobra.Command{
		Use: "exec [OPTIONS] CONTAINER COMMAND [ARG...]", Short: "Execute a command in a running container", Args: atLeast(2),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) (err error) {
			if o.Env, err = environment(envFile, env); err != nil {
				return err
			}
			o.Cmd = args[1:]
			o.AttachStdin, o.AttachStdout, o.AttachStderr = interactive && !detach, !detach, !detach
			return a.exec(cmd.Context(), api, args[0], o, detach)
		}),
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVarP(&detach, "detach", "d", false, "Detached mode: run command in the background")
	flags.BoolVarP(&interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	flags.BoolVarP(&o.TTY, "tty", "t", false, "Allocate a pseudo-TTY")
	flags.StringVarP(&o.User, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	flags.BoolVar(&o.Privileged, "privileged", false, "Give extended privileges to the command")
	flags.StringArrayVarP(&env, "env", "e", nil, "Set environment variables")
	flags.StringVar(&envFile, "env-file", "", "Read in a file of environment variables")
	flags.StringVarP(&o.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	flags.StringVar(&o.DetachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func (a *app) exec(ctx context.Context, api *client.Client, name string, o client.ExecCreateOptions, detach bool) error {
	if err := a.checkTerminal(o.AttachStdin, o.TTY); err != nil {
		return err
	}
	s := &streams{app: a, tty: o.TTY, stdin: o.AttachStdin, detachKeys: o.DetachKeys, out: a.out, err: a.err}
	if o.TTY {
		o.ConsoleSize.Height, o.ConsoleSize.Width = s.terminalSize()
	}
	created, err := api.ExecCreate(ctx, name, o)
	if err != nil {
		return err
	}
	if detach {
		_, err := api.ExecStart(ctx, created.ID, client.ExecStartOptions{Detach: true, TTY: o.TTY})
		return execFailed(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := api.ExecAttach(ctx, created.ID, client.ExecAttachOptions{TTY: o.TTY, ConsoleSize: o.ConsoleSize})
	if err != nil {
		return execFailed(err)
	}
	defer conn.Close()
	s.followSize(ctx, func(ctx context.Context, height, width uint) error {
		_, err := api.ExecResize(ctx, created.ID, client.ExecResizeOptions{Height: height, Width: width})
		return err
	})
	if err := s.copy(conn.HijackedResponse); err != nil {
		if errors.Is(err, errDetached) {
			return nil
		}
		return err
	}
	done, err := api.ExecInspect(ctx, created.ID, client.ExecInspectOptions{})
	if err != nil {
		if cerrdefs.IsNotFound(err) {
			return &status{137, fmt.Sprintf("container %s ended before its command", name)}
		}
		return err
	}
	return exitWith(done.ExitCode)
}

// execFailed gives a command that cannot run its exit code.
func execFailed(err error) error {
	if err == nil {
		return nil
	}
	text := explain(err).Error()
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		return &status{127, text}
	case strings.Contains(text, "permission denied"):
		return &status{126, text}
	}
	return err
}
