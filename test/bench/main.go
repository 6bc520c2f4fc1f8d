// Bench measures davit beside the container engines that are installed,
// interleaved in one run, and prints minimum, median and 95th percentile with
// ratios. It never judges absolute times: machines differ, ratios less so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	rounds := flag.Int("n", 15, "rounds per row; every engine runs once a round")
	write := flag.String("write", "", "also write the table to this file (docs/benchmarks.md)")
	containers := flag.Int("containers", 20, "idle containers whose memory is measured")
	part := flag.String("part", "", "only containers or images; empty: both")
	debian := flag.String("debian", "build/debian.tar", "root filesystem that becomes an image, if it is there")
	only := flag.String("only", "", "comma-separated engines, e.g. davit,podman; empty: all that are installed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, options{*rounds, *containers, *write, *only, *part, *debian}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds, containers        int
	write, only, part, debian string
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("engines need root: run as root")
	}
	dir, err := os.MkdirTemp("", "davit-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	image, err := busyboxTar(dir)
	if err != nil {
		return err
	}
	var engines []engine
	for _, e := range all(dir) {
		if !wanted(o.only, e.name()) {
			continue
		}
		if why := e.start(ctx, image); why != nil {
			fmt.Fprintf(os.Stderr, "%s is left out: %v\n", e.name(), why)
			_ = e.stop(ctx)
			continue
		}
		engines = append(engines, e)
	}
	defer func() {
		for _, e := range engines {
			err = errors.Join(err, e.stop(context.WithoutCancel(ctx)))
		}
	}()
	t := &table{}
	for _, e := range engines {
		t.engines = append(t.engines, e.name())
	}
	if o.part != "images" {
		if err := t.measure(ctx, running(ctx, engines, os.Stderr), o.rounds, o.containers); err != nil {
			return err
		}
	}
	if o.part != "containers" {
		if err := t.images(ctx, engines, dir, o.debian, o.rounds); err != nil {
			return err
		}
	}
	out := io.Writer(os.Stdout)
	if o.write != "" {
		f, err := os.Create(o.write)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		out = io.MultiWriter(os.Stdout, f)
	}
	return t.print(out, o.rounds)
}
