package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/logs"
	"github.com/davit-engine/davit/core/spec"
	"github.com/davit-engine/davit/sdk/storage"
)

// errInvalid is short for the kind of a bad request.
var errInvalid = errdefs.ErrInvalidArgument

// ContainerUpdate changes limits and the restart policy, of a running container
// too.
func (e *Engine) ContainerUpdate(ctx context.Context, name string, u mobycontainer.UpdateConfig) (mobycontainer.UpdateResponse, error) {
	response := mobycontainer.UpdateResponse{Warnings: []string{}}
	c, err := e.find(ctx, name)
	if err != nil {
		return response, err
	}
	if u.RestartPolicy.Name != "" {
		if err := mobycontainer.ValidateRestartPolicy(u.RestartPolicy); err != nil {
			return response, fmt.Errorf("%w: %w", err, errInvalid)
		}
	}
	end, err := c.Begin(ctx)
	if err != nil {
		return response, err
	}
	defer end()
	r := c.Record()
	if u.RestartPolicy.Name != "" && !u.RestartPolicy.IsNone() && r.HostConfig.AutoRemove {
		return response, errInvalid.WithMessage("Restart policy cannot be updated because AutoRemove is enabled for the container")
	}
	host := *r.HostConfig
	if err := checkUpdate(host.Resources, u.Resources); err != nil {
		return response, err
	}
	mergeResources(&host.Resources, u.Resources)
	if u.RestartPolicy.Name != "" {
		host.RestartPolicy = u.RestartPolicy
	}
	var dropped []string
	if host.Resources, dropped, err = e.kernel.Fit(host.Resources); err != nil {
		return response, err
	}
	response.Warnings = append(response.Warnings, dropped...)
	resources, err := spec.Resources(host.Resources)
	if err != nil {
		return response, err
	}
	if r.Status.Alive() {
		// Devices are not updated: what is open stays open.
		resources.Devices = nil
		body, err := json.Marshal(resources)
		if err != nil {
			return response, err
		}
		driver, err := e.Drivers.Runtime(r.RuntimeDriver)
		if err != nil {
			return response, err
		}
		if err := driver.Update(ctx, r.ID, body); err != nil {
			return response, fmt.Errorf("cannot update container %s: %w", r.ID, err)
		}
	}
	if err := c.Update(func(r *container.Record) error { r.HostConfig = &host; return nil }); err != nil {
		return response, err
	}
	e.containerEvent(r, events.ActionUpdate, nil)
	return response, nil
}

// checkUpdate refuses what contradicts a limit that is set already.
func checkUpdate(old, u mobycontainer.Resources) error {
	conflict := func(one, other string) error {
		return errInvalid.WithMessage(fmt.Sprintf("Conflicting options: %s cannot be updated as %s has already been set", one, other))
	}
	switch {
	case u.NanoCPUs > 0 && old.CPUPeriod > 0:
		return conflict("Nano CPUs", "CPU Period")
	case u.NanoCPUs > 0 && old.CPUQuota > 0:
		return conflict("Nano CPUs", "CPU Quota")
	case u.CPUPeriod > 0 && old.NanoCPUs > 0:
		return conflict("CPU Period", "NanoCPUs")
	case u.CPUQuota > 0 && old.NanoCPUs > 0:
		return conflict("CPU Quota", "NanoCPUs")
	case old.MemorySwap > 0 && u.Memory > old.MemorySwap && u.MemorySwap == 0:
		return errInvalid.WithMessage("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	return nil
}

// mergeResources takes what an update sets; zero means unchanged.
func mergeResources(to *mobycontainer.Resources, from mobycontainer.Resources) {
	set(&to.CPUShares, from.CPUShares)
	set(&to.Memory, from.Memory)
	set(&to.MemoryReservation, from.MemoryReservation)
	set(&to.MemorySwap, from.MemorySwap)
	set(&to.CPUPeriod, from.CPUPeriod)
	set(&to.CPUQuota, from.CPUQuota)
	set(&to.CPURealtimePeriod, from.CPURealtimePeriod)
	set(&to.CPURealtimeRuntime, from.CPURealtimeRuntime)
	set(&to.CpusetCpus, from.CpusetCpus)
	set(&to.CpusetMems, from.CpusetMems)
	set(&to.BlkioWeight, from.BlkioWeight)
	set(&to.NanoCPUs, from.NanoCPUs)
	if from.PidsLimit != nil {
		to.PidsLimit = from.PidsLimit
	}
}

func set[T comparable](to *T, from T) {
	var zero T
	if from != zero {
		*to = from
	}
}

// ContainerRename gives a container another name.
func (e *Engine) ContainerRename(ctx context.Context, name, newName string) error {
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	if newName == "" {
		return errInvalid.WithMessage("Neither old nor new names may be empty")
	}
	if newName[0] == '/' {
		newName = newName[1:]
	}
	if err := container.CheckName(newName); err != nil {
		return fmt.Errorf("error when allocating new name: %w", err)
	}
	old := c.Record().Name
	if old == newName {
		return errInvalid.WithMessage("Renaming a container with the same name as its current name")
	}
	if err := e.containers.Reserve(newName, c.ID); err != nil {
		return fmt.Errorf("error when allocating new name: %w", err)
	}
	if err := c.Update(func(r *container.Record) error { r.Name = newName; return nil }); err != nil {
		e.containers.Free(newName, c.ID)
		return err
	}
	e.containers.Free(old, c.ID)
	e.Networks.Rename(c.ID, newName)
	e.containerEvent(c.Record(), events.ActionRename, map[string]string{"oldName": "/" + old})
	return nil
}

// ContainerChanges lists what differs from the image.
func (e *Engine) ContainerChanges(ctx context.Context, name string) ([]mobycontainer.FilesystemChange, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return nil, err
	}
	r := c.Record()
	list, err := e.changes(ctx, r)
	if err != nil {
		return nil, err
	}
	kinds := map[storage.ChangeKind]mobycontainer.ChangeType{
		storage.ChangeModify: mobycontainer.ChangeModify, storage.ChangeAdd: mobycontainer.ChangeAdd, storage.ChangeDelete: mobycontainer.ChangeDelete,
	}
	changes := make([]mobycontainer.FilesystemChange, 0, len(list))
	for _, change := range list {
		changes = append(changes, mobycontainer.FilesystemChange{Kind: kinds[change.Kind], Path: change.Path})
	}
	return changes, nil
}

// placed are the mount points that every container gets: none of its own doing.
var placed = []string{"/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}

// logStream implements backend.LogStream.
type logStream struct {
	terminal bool
	path     string
	options  logs.Options
	done     <-chan struct{}
	stop     func()
}

// Terminal implements backend.LogStream.
func (l *logStream) Terminal() bool { return l.terminal }

// Copy implements backend.LogStream.
func (l *logStream) Copy(ctx context.Context, out io.Writer) error {
	defer l.stop()
	return logs.Copy(ctx, l.path, l.options, out, l.done)
}

// ContainerLogs opens a container's log.
func (e *Engine) ContainerLogs(ctx context.Context, name string, o backend.LogsOptions) (backend.LogStream, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return nil, err
	}
	if !o.Stdout && !o.Stderr {
		return nil, errInvalid.WithMessage("Bad parameters: you must choose at least one stream")
	}
	r := c.Record()
	if kind := r.HostConfig.LogConfig.Type; kind != "json-file" {
		return nil, fmt.Errorf("configured logging driver %q does not support reading: %w", kind, errdefs.ErrNotImplemented)
	}
	stream := &logStream{terminal: r.Config.Tty, path: e.logPath(r.ID), stop: func() {}, options: logs.Options{
		Follow: o.Follow, Since: o.Since, Until: o.Until, Tail: o.Tail, Timestamps: o.Timestamps, Details: o.Details, Stdout: o.Stdout, Stderr: o.Stderr, Raw: r.Config.Tty,
	}}
	ended := make(chan struct{})
	stream.done = ended
	if !o.Follow {
		close(ended)
		return stream, nil
	}
	// Following ends with the container; the watcher ends with the reader.
	watching, cancel := context.WithCancel(e.life)
	stopped := make(chan struct{})
	stream.stop = func() { cancel(); <-stopped }
	moment := c.Now()
	go func() {
		defer close(stopped)
		_, err := c.Await(watching, moment, func(r container.Record, ended, removed bool) bool {
			return ended && !r.Status.Alive() && r.Status != container.Restarting || removed || !r.Status.Alive() && r.Status != container.Restarting && r.Status != container.Created
		})
		if err == nil || e.life.Err() != nil {
			close(ended)
		}
	}()
	return stream, nil
}
