package systemd

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/coreos/go-systemd/v22/dbus"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
)

// leaving is how long one waits for a scope of the same name that is on its way out.
const leaving = 3 * time.Second

// Start makes the scope with a process in it, without which there is none, and
// limits as systemd words them. Annotations org.systemd.property.NAME of a spec set
// further properties. A unit of that name that stays is ErrAlreadyExists.
func (s Scope) Start(ctx context.Context, pid int, description string, r *specs.LinuxResources, annotations map[string]string) error {
	accounts := []dbus.Property{property("CPUAccounting", true), property("MemoryAccounting", true), property("TasksAccounting", true)}
	if cgroup.Version() == 2 {
		accounts = append(accounts, property("IOAccounting", true))
	} else {
		accounts = append(accounts, property("BlockIOAccounting", true))
	}
	limits, err := limitProperties(r)
	if err != nil {
		return err
	}
	devices, err := deviceProperties(r)
	if err != nil {
		return err
	}
	further, err := annotated(annotations)
	if err != nil {
		return err
	}
	properties := override(slices.Concat(s.identity(pid, description), accounts, limits, devices), further)
	return call(ctx, func(ctx context.Context, conn *dbus.Conn) error {
		properties, err := supported(conn, properties)
		if err != nil {
			return err
		}
		what := "starting scope " + s.Name
		results := make(chan string, 1)
		deadline := time.Now().Add(leaving)
		for {
			_, err := conn.StartTransientUnitContext(ctx, s.Name, "replace", properties, results)
			switch {
			case err == nil:
				return await(ctx, what, results)
			case !is(err, unitExists):
				return fmt.Errorf("%s: %w", what, err)
			case time.Now().After(deadline):
				return fmt.Errorf("%s: %w: %w", what, err, errdefs.ErrAlreadyExists)
			}
			// One that failed stays until it is forgotten, one whose last process has ended
			// until systemd has heard of that.
			_ = conn.ResetFailedUnitContext(ctx, s.Name)
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: %w", what, ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
}

// Ensure makes the scope, without limits, with a process in it, unless there is one
// of that name.
func (s Scope) Ensure(ctx context.Context, pid int, description string) error {
	return call(ctx, func(ctx context.Context, conn *dbus.Conn) error {
		results := make(chan string, 1)
		_, err := conn.StartTransientUnitContext(ctx, s.Name, "replace", s.identity(pid, description), results)
		switch {
		case is(err, unitExists):
			return nil
		case err != nil:
			return fmt.Errorf("starting scope %s: %w", s.Name, err)
		}
		return await(ctx, "starting scope "+s.Name, results)
	})
}

// identity are the properties that every scope has.
func (s Scope) identity(pid int, description string) []dbus.Property {
	return []dbus.Property{
		dbus.PropDescription(description),
		dbus.PropSlice(s.Slice),
		property("PIDs", []uint32{uint32(pid)}),
		property("Delegate", true),
		property("DefaultDependencies", false),
		property("CollectMode", "inactive-or-failed"),
	}
}

// Update tells systemd of limits that the scope's group has got: those that r names,
// with the values the kernel has for them.
func (s Scope) Update(ctx context.Context, group *cgroup.Group, r *specs.LinuxResources) error {
	limits, err := presentProperties(group, r)
	if err != nil {
		return err
	}
	devices, err := deviceProperties(r)
	if err != nil {
		return err
	}
	properties := slices.Concat(limits, devices)
	if len(properties) == 0 {
		return nil
	}
	return call(ctx, func(ctx context.Context, conn *dbus.Conn) error {
		properties, err := supported(conn, properties)
		if err == nil {
			err = conn.SetUnitPropertiesContext(ctx, s.Name, true, properties...)
		}
		if is(err, noSuchUnit) {
			return fmt.Errorf("setting limits of scope %s: %w: %w", s.Name, err, errdefs.ErrNotFound)
		}
		if err != nil {
			return fmt.Errorf("setting limits of scope %s: %w", s.Name, err)
		}
		// systemd answers before it writes to the cgroup, and writes before it answers
		// the next question.
		_, err = conn.GetManagerProperty("Version")
		return err
	})
}

// Stop ends and forgets the scope. One that systemd does not know is no error.
func (s Scope) Stop(ctx context.Context) error {
	return call(ctx, func(ctx context.Context, conn *dbus.Conn) error {
		results := make(chan string, 1)
		_, err := conn.StopUnitContext(ctx, s.Name, "replace", results)
		switch {
		case is(err, noSuchUnit):
			return nil
		case err != nil:
			return fmt.Errorf("stopping scope %s: %w", s.Name, err)
		}
		if err := await(ctx, "stopping scope "+s.Name, results); err != nil {
			return err
		}
		if err := conn.ResetFailedUnitContext(ctx, s.Name); err != nil && !is(err, noSuchUnit) {
			return fmt.Errorf("forgetting scope %s: %w", s.Name, err)
		}
		return nil
	})
}
