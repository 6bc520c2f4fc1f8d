package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	mobymount "github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/rootfs"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/runtime"
)

// withRoot runs fn on a container's filesystem: that of the running process, or
// the layer mounted for the occasion, with volumes and binds in their places.
func (e *Engine) withRoot(ctx context.Context, r container.Record, readOnly bool, fn func(*rootfs.View) error) error {
	if r.Status.Alive() {
		return rootfs.Running(r.PID, r.ID, fn)
	}
	driver, err := e.Drivers.Storage(r.StorageDriver)
	if err != nil {
		return err
	}
	mounts, err := driver.Mounts(ctx, r.Snapshot)
	if err != nil {
		return err
	}
	return e.borrowVolumes(ctx, r, func(given map[string]mount.Mount) error {
		all := slices.Clone(mounts)
		for _, m := range r.Mounts {
			volume, borrowed := given[m.Destination]
			if !borrowed {
				volume = mount.Mount{Type: "bind", Source: m.Source}
			}
			if m.Type == mobymount.TypeTmpfs || volume.Type != "bind" {
				continue
			}
			options := []string{"rbind"}
			if !m.RW {
				options = append(options, "ro")
			}
			if m.Subpath != "" {
				options = append(options, runtime.SubdirOption+m.Subpath)
			}
			all = append(all, mount.Mount{Type: "bind", Source: volume.Source, Target: m.Destination, Options: options})
		}
		return rootfs.Mounted(ctx, all, readOnly, fn)
	})
}

// pathError is Docker's text for a path that is not there.
func pathError(r container.Record, path string, err error) error {
	if errdefs.IsNotFound(ignoreKind(err)) {
		return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("Could not find the file %s in container %s", path, r.Name))
	}
	for _, wrong := range []error{unix.ELOOP, unix.ENOTDIR, unix.ENAMETOOLONG} {
		if errors.Is(err, wrong) {
			return fmt.Errorf("%w: %w", err, errInvalid)
		}
	}
	return err
}

// ignoreKind makes a missing file a "not found" of the API.
func ignoreKind(err error) error {
	if err != nil && ignoreNotFound(err) == nil {
		return errdefs.ErrNotFound
	}
	return err
}

// ContainerStatPath describes a file in a container.
func (e *Engine) ContainerStatPath(ctx context.Context, name, path string) (stat mobycontainer.PathStat, err error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return stat, err
	}
	r := c.Record()
	err = e.withRoot(ctx, r, true, func(v *rootfs.View) (err error) {
		stat, err = v.Stat(path)
		return err
	})
	return stat, pathError(r, path, err)
}

// ContainerArchive streams a path of a container as a tar archive.
func (e *Engine) ContainerArchive(ctx context.Context, name, path string) (io.ReadCloser, mobycontainer.PathStat, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return nil, mobycontainer.PathStat{}, err
	}
	r := c.Record()
	content, stat, err := stream(func(begin func(mobycontainer.PathStat), out io.Writer) error {
		return e.withRoot(ctx, r, true, func(v *rootfs.View) error {
			stat, err := v.Stat(path)
			if err != nil {
				return err
			}
			begin(stat)
			return v.Archive(path, out)
		})
	})
	if err != nil {
		return nil, stat, pathError(r, path, err)
	}
	e.containerEvent(r, events.ActionArchivePath, nil)
	return content, stat, nil
}

// ContainerExport streams a container's whole filesystem as a tar archive.
func (e *Engine) ContainerExport(ctx context.Context, name string) (io.ReadCloser, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return nil, err
	}
	r := c.Record()
	driver, err := e.Drivers.Storage(r.StorageDriver)
	if err != nil {
		return nil, err
	}
	mounts, err := driver.Mounts(ctx, r.Snapshot)
	if err != nil {
		return nil, err
	}
	content, _, err := stream(func(begin func(mobycontainer.PathStat), out io.Writer) error {
		export := func(v *rootfs.View) error {
			begin(mobycontainer.PathStat{})
			return v.Export(out)
		}
		// Only the layer: a running container's volumes are not part of it.
		return rootfs.Mounted(ctx, mounts, true, export)
	})
	if err != nil {
		return nil, err
	}
	e.containerEvent(r, events.ActionExport, nil)
	return content, nil
}

// stream runs a producer beside its reader. Errors before begin are returned;
// later ones end the stream.
func stream(produce func(begin func(mobycontainer.PathStat), out io.Writer) error) (io.ReadCloser, mobycontainer.PathStat, error) {
	reader, writer := io.Pipe()
	began := make(chan mobycontainer.PathStat, 1)
	failed := make(chan error, 1)
	go func() {
		err := produce(func(stat mobycontainer.PathStat) { began <- stat }, writer)
		failed <- err
		_ = writer.CloseWithError(err)
	}()
	select {
	case stat := <-began:
		return reader, stat, nil
	case err := <-failed:
		select {
		case stat := <-began: // short enough to be over already
			return reader, stat, nil
		default:
			return nil, mobycontainer.PathStat{}, err
		}
	}
}

// ContainerExtract unpacks a tar archive into a directory of a container.
func (e *Engine) ContainerExtract(ctx context.Context, name, path string, o backend.ExtractOptions, content io.Reader) error {
	c, err := e.find(ctx, name)
	if err != nil {
		return err
	}
	r := c.Record()
	if r.HostConfig.ReadonlyRootfs && !slices.ContainsFunc(r.Mounts, func(m container.Mount) bool {
		return m.RW && (path == m.Destination || strings.HasPrefix(path, m.Destination+"/"))
	}) {
		return errdefs.ErrPermissionDenied.WithMessage("container rootfs is marked read-only")
	}
	if r.StartedAt.IsZero() && !r.Written {
		if err := c.Update(func(r *container.Record) error { r.Written = true; return nil }); err != nil {
			return err
		}
	}
	err = e.withRoot(ctx, r, false, func(v *rootfs.View) error {
		return v.Extract(path, content, rootfs.ExtractOptions{NoOverwriteDirNonDir: o.NoOverwriteDirNonDir, CopyUIDGID: o.CopyUIDGID})
	})
	if err != nil {
		return pathError(r, path, err)
	}
	e.containerEvent(r, events.ActionExtractToDir, nil)
	return nil
}
