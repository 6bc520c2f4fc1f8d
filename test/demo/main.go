// Demo shows davit's main job on a private engine, without any network: it makes
// an image, runs a container through four driver processes, kills driver after
// driver and then the core while the container keeps serving, cleans up, and
// proves that nothing is left.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/davit-engine/davit/test/private"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\n%sdemo failed:%s %v\n", red, plain, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("davit makes namespaces, cgroups and network links: run the demo as root")
	}
	started := time.Now()
	engine, err := private.New(private.Options{})
	if err != nil {
		return err
	}
	d := &demo{engine: engine, port: 0}
	defer func() {
		if err != nil {
			if tail := engine.LogTail(); tail != "" {
				fmt.Fprintf(os.Stderr, "\n%sthe engine's log ends with%s\n%s\n", dim, plain, tail)
			}
			d.sweep()
		}
	}()
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Start a private engine", d.start},
		{"Make an image, without any network", d.image},
		{"Run a container on it", d.container},
		{"Fetch its page through the published port", d.page},
		{"Who does the work", d.processes},
		{"Kill one driver after the other, and the core", d.killAll},
		{"Clean up and look for anything left", d.cleanUp},
	} {
		fmt.Printf("\n%s── %s%s\n", bold, step.title, plain)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	fmt.Printf("\n%sdone in %.1f s: nothing left behind%s\n", green, time.Since(started).Seconds(), plain)
	return nil
}
