// Davitd is davit's core process: it serves the Docker Engine API, keeps the
// state of containers, images, networks and volumes, and routes all work on them
// to driver plugins. It may be stopped, killed or replaced at any moment;
// containers go on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/config"
)

func main() {
	c, err := configure(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.Level()}))
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
		defer stop()
		err = run(ctx, c, log)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "davitd:", err)
		os.Exit(1)
	}
}

// configure reads the file and lets flags change it.
func configure(args []string) (config.Config, error) {
	flags := flag.NewFlagSet("davitd", flag.ContinueOnError)
	var (
		file    = flags.String("config", "", "configuration `file` (default "+config.DefaultPath+", if it is there)")
		root    = flags.String("root", "", "`directory` of persistent state")
		runDir  = flags.String("run", "", "`directory` of runtime state")
		host    = flags.String("host", "", "`address` of the API, e.g. unix:///run/davit.sock; several with commas")
		plugins = flags.String("plugin-dir", "", "`directories` of driver plugins, separated by commas")
		level   = flags.String("log-level", "", "trace, debug, info, warn or `error`")
		driver  = flags.String("cgroup-driver", "", "what makes cgroups: cgroupfs or `systemd`")
		parent  = flags.String("cgroup-parent", "", "`path` of the cgroup above containers', or their slice")
		version = flags.Bool("version", false, "print the version and exit")
	)
	if err := flags.Parse(args); err != nil {
		return config.Config{}, err
	}
	if *version {
		fmt.Println("davitd version", config.Version)
		return config.Config{}, flag.ErrHelp
	}
	if flags.NArg() > 0 {
		return config.Config{}, fmt.Errorf("unexpected argument %q: davitd takes only flags (see --help)", flags.Arg(0))
	}
	c, err := config.Load(*file)
	if err != nil {
		return c, err
	}
	for _, given := range []struct {
		from *string
		to   *string
	}{{root, &c.Root}, {runDir, &c.Run}, {level, &c.LogLevel}, {driver, &c.CgroupDriver}, {parent, &c.CgroupParent}} {
		if *given.from != "" {
			*given.to = *given.from
		}
	}
	if *host != "" {
		c.Listen = strings.Split(*host, ",")
	}
	if *plugins != "" {
		c.Plugins.Dirs = strings.Split(*plugins, ",")
	}
	return c, c.Validate()
}
