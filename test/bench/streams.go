package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

const (
	logBytes      = 8 << 20
	attachedBytes = 256 << 20
	usualLine     = "a line of a usual length, as programs write them all day long"
)

// streams measures how fast output goes to the log, from the log to a client,
// and to an attached client.
func (t *table) streams(ctx context.Context, engines []engine, rounds int) error {
	write := t.add("container writes lines to its log", "MB/s", 1)
	read := t.add("logs of them", "MB/s", 1)
	attached := t.add("run without a log, output to the client", "MB/s", 0)
	for round := range rounds {
		for _, e := range engines {
			name := "bench-log" + strconv.Itoa(round)
			seconds, err := logLines(ctx, e, name)
			if err != nil {
				return fmt.Errorf("%s: writing a log: %w", e.name(), err)
			}
			write.samples[e.name()] = append(write.samples[e.name()], logBytes/1e6/seconds)
			milliseconds, err := timed(func() error { return quiet(e.command(ctx, "logs", name)) })
			if err != nil {
				return fmt.Errorf("%s: reading a log: %w", e.name(), err)
			}
			read.samples[e.name()] = append(read.samples[e.name()], logBytes/1e3/milliseconds)
			if err := quiet(e.command(ctx, "rm", "-f", name)); err != nil {
				return err
			}
			milliseconds, err = timed(func() error {
				return quiet(e.command(ctx, "run", "--rm", "--log-driver", "none", "--network", "none", imageName,
					"/bin/busybox", "dd", "if=/dev/zero", "bs=256k", "count="+strconv.Itoa(attachedBytes>>18)))
			})
			if err != nil {
				return fmt.Errorf("%s: attached output: %w", e.name(), err)
			}
			attached.samples[e.name()] = append(attached.samples[e.name()], attachedBytes/1e3/milliseconds)
		}
	}
	return nil
}

// logLines runs a container that writes lines and answers how long it took, its
// start included.
func logLines(ctx context.Context, e engine, name string) (seconds float64, err error) {
	script := "/bin/busybox yes '" + usualLine + "' | /bin/busybox head -c " + strconv.Itoa(logBytes)
	begin := time.Now()
	for _, cmd := range []*exec.Cmd{
		e.command(ctx, "run", "-d", "--name", name, "--network", "none", imageName, "/bin/sh", "-c", script),
		e.command(ctx, "wait", name),
	} {
		if err := quiet(cmd); err != nil {
			return 0, err
		}
	}
	return time.Since(begin).Seconds(), nil
}
