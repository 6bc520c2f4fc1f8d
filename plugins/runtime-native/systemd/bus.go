package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// patience bounds a job of systemd's: it answers in milliseconds, and later only if
// it is busy with itself.
const patience = 30 * time.Second

// booted is a directory that exists where systemd is the init (sd_booted(3)).
const booted = "/run/systemd/system"

// Errors of systemd's, by their D-Bus names.
const (
	unitExists = "org.freedesktop.systemd1.UnitExists"
	noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"
)

// Running says whether systemd is the init of this host.
func Running() bool {
	info, err := os.Lstat(booted)
	return err == nil && info.IsDir()
}

// call runs fn with a connection to systemd and a deadline. Where no systemd runs
// the error is ErrFailedPrecondition.
func call(ctx context.Context, fn func(context.Context, *dbus.Conn) error) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("scopes of a user's own systemd are not supported, only those of the system's: %w", errdefs.ErrNotImplemented)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := dbus.NewWithContext(ctx)
	switch {
	case err != nil && !Running():
		return fmt.Errorf("no systemd is running here, there is no %s: %w: %w", booted, err, errdefs.ErrFailedPrecondition)
	case err != nil:
		return fmt.Errorf("connecting to systemd: %w: %w", err, errdefs.ErrUnavailable)
	}
	defer conn.Close()
	return fn(ctx, conn)
}

// await waits for the result of a job.
func await(ctx context.Context, what string, results <-chan string) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: systemd's job does not end: %w", what, ctx.Err())
	case result := <-results:
		if result != "done" {
			return fmt.Errorf("%s: systemd's job ended as %q", what, result)
		}
		return nil
	}
}

// is says whether an error is one of systemd's.
func is(err error, name string) bool {
	var failure godbus.Error
	return errors.As(err, &failure) && failure.Name == name
}
