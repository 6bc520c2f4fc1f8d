package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/checkpoint"
	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/sdk/runtime"
)

// checkpointTimeout bounds dumping and restoring, which take as long as the disk
// takes for the container's memory.
const checkpointTimeout = 15 * time.Minute

// partialCheckpoint is the suffix of what a crashed runtime driver leaves.
const partialCheckpoint = ".partial"

var checkpointName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// ContainerCheckpoint writes the state of a container's processes to disk; they
// end unless o.Exit is false.
func (e *Engine) ContainerCheckpoint(ctx context.Context, name string, o checkpoint.CreateRequest) error {
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	if err := e.checkpoint(ctx, c, o); err != nil {
		return err
	}
	e.containerEvent(c.Record(), events.ActionCheckpoint, nil)
	return nil
}

func (e *Engine) checkpoint(ctx context.Context, c *container.Container, o checkpoint.CreateRequest) (err error) {
	end, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	ended := false
	defer func() {
		if !ended {
			end()
		}
	}()
	r := c.Record()
	if !r.Status.Alive() {
		return notRunning(r)
	}
	parent, image, err := e.checkpointPath(r, o.CheckpointID, o.CheckpointDir)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(image); err == nil {
		return errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("cannot checkpoint container %s: checkpoint with name %s already exists for container %s", r.Name, o.CheckpointID, r.Name))
	}
	checkpointer, err := e.checkpointer(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return fmt.Errorf("cannot checkpoint container %s: %w", r.Name, err)
	}
	if o.Exit {
		// Its end is wanted: no restart policy applies.
		if err := c.Update(func(r *container.Record) error { r.Stopped = true; return nil }); err != nil {
			return err
		}
	}
	moment := c.Now()
	patient, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	err = checkpointer.Checkpoint(patient, runtime.Checkpoint{
		ID: r.ID, Image: image, LeaveRunning: !o.Exit, Connections: runtime.Connections{FileLocks: true},
	})
	var lost error
	if _, missing := os.Stat(image); missing == nil && err != nil {
		// It was not there before, and what is there is complete: the driver died, and
		// this is what its successor makes of the end that it has found.
		lost, err = err, nil
	}
	if err != nil {
		if o.Exit {
			err = errors.Join(err, c.Update(func(changed *container.Record) error { changed.Stopped = r.Stopped; return nil }))
		}
		return fmt.Errorf("cannot checkpoint container %s: %w", r.Name, err)
	}
	if !o.Exit {
		return nil
	}
	// The exit watcher needs the container's turn.
	ended = true
	end()
	waiting, stop := context.WithTimeout(ctx, killTimeout)
	defer stop()
	err = e.awaitEnd(waiting, c, moment)
	if err != nil && lost != nil {
		// The container was not let go: it is beyond its checkpoint.
		return fmt.Errorf("cannot checkpoint container %s: %w", r.Name, errors.Join(lost, os.RemoveAll(image)))
	}
	return err
}

// checkpointer answers the runtime driver of a container if it makes checkpoints.
func (e *Engine) checkpointer(r container.Record) (runtime.Checkpointer, error) {
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return nil, badDriver(err)
	}
	c, ok := driver.(runtime.Checkpointer)
	if !ok {
		return nil, errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("runtime driver %s makes no checkpoints", r.RuntimeDriver))
	}
	return c, nil
}

// checkpointPath is the directory of a checkpoint and the one it is in.
func (e *Engine) checkpointPath(r container.Record, id, dir string) (parent, image string, err error) {
	if !checkpointName.MatchString(id) || strings.HasSuffix(id, partialCheckpoint) {
		return "", "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("Invalid checkpoint ID (%s), only %s are allowed", id, "[a-zA-Z0-9][a-zA-Z0-9_.-]"))
	}
	if parent, err = e.checkpointParent(r, dir); err != nil {
		return "", "", err
	}
	return parent, filepath.Join(parent, id), nil
}

func (e *Engine) checkpointParent(r container.Record, dir string) (string, error) {
	if dir == "" {
		return filepath.Join(e.dir(r.ID), "checkpoints"), nil
	}
	if !filepath.IsAbs(dir) {
		return "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("checkpoint directory %q is not an absolute path", dir))
	}
	return filepath.Clean(dir), nil
}

// ContainerCheckpoints lists the checkpoints of a container, or those in a
// directory.
func (e *Engine) ContainerCheckpoints(ctx context.Context, name, dir string) ([]checkpoint.Summary, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return nil, err
	}
	parent, err := e.checkpointParent(c.Record(), dir)
	if err != nil {
		return nil, err
	}
	list := []checkpoint.Summary{}
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if entry.IsDir() && !strings.HasSuffix(entry.Name(), partialCheckpoint) {
			list = append(list, checkpoint.Summary{Name: entry.Name()})
		}
	}
	return list, nil
}

// ContainerCheckpointRemove removes a checkpoint.
func (e *Engine) ContainerCheckpointRemove(ctx context.Context, name, id, dir string) error {
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	image, err := e.findCheckpoint(c.Record(), id, dir)
	if err != nil {
		return err
	}
	// Out of the list in one step: what a crash leaves of it is no checkpoint.
	left := image + partialCheckpoint
	if err := os.RemoveAll(left); err != nil {
		return err
	}
	if err := os.Rename(image, left); err != nil {
		return err
	}
	return os.RemoveAll(left)
}

// findCheckpoint answers the directory of an existing checkpoint.
func (e *Engine) findCheckpoint(r container.Record, id, dir string) (string, error) {
	_, image, err := e.checkpointPath(r, id, dir)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(image)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", errdefs.ErrNotFound.WithMessage(fmt.Sprintf("checkpoint %s does not exist for container %s", id, r.Name))
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", errdefs.ErrInvalidArgument.WithMessage(image + " exists and is not a directory")
	}
	return image, nil
}

// createRuntime makes the container's processes up to the point before they run:
// new ones, or those of the checkpoint in a directory.
func (e *Engine) createRuntime(ctx context.Context, r container.Record, driver runtime.Driver, create runtime.Create, o backend.StartOptions) (runtime.Process, error) {
	if o.Checkpoint == "" {
		return driver.Create(ctx, create)
	}
	image, err := e.findCheckpoint(r, o.Checkpoint, o.CheckpointDir)
	if err != nil {
		return runtime.Process{}, err
	}
	checkpointer, err := e.checkpointer(r)
	if err != nil {
		return runtime.Process{}, err
	}
	patient, cancel := context.WithTimeout(ctx, checkpointTimeout)
	defer cancel()
	return checkpointer.Restore(patient, runtime.Restore{Create: create, Image: image, Connections: runtime.Connections{FileLocks: true}})
}

// sweepCheckpoints removes what a crash left of checkpoints and removals.
func (e *Engine) sweepCheckpoints() error {
	left, err := filepath.Glob(filepath.Join(e.dir("*"), "checkpoints", "*"+partialCheckpoint))
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}
