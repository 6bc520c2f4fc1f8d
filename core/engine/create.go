package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/image"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/core/spec"
)

// Labels by which a container chooses its drivers.
const (
	labelStorage = "dev.davit.storage"
	labelRuntime = "dev.davit.runtime"
)

// ContainerCreate makes a container: its record, its writable layer and its
// volumes. Nothing runs yet.
func (e *Engine) ContainerCreate(ctx context.Context, name, platform string, req mobycontainer.CreateRequest) (_ mobycontainer.CreateResponse, err error) {
	var response mobycontainer.CreateResponse
	if err := e.ready(ctx); err != nil {
		return response, err
	}
	if req.Config == nil {
		return response, errdefs.ErrInvalidArgument.WithMessage("config cannot be empty in order to create a container")
	}
	if req.Config.Image == "" {
		return response, errdefs.ErrInvalidArgument.WithMessage("No image specified")
	}
	if err := checkRequest(req.Config, req.HostConfig); err != nil {
		return response, err
	}
	if err := e.checkCgroupParent(req.HostConfig); err != nil {
		return response, err
	}
	img, err := e.Images.Resolve(ctx, req.Config.Image)
	if err != nil {
		return response, err
	}
	if platform != "" && !platformMatches(platform, img) {
		return response, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("image with reference %s was found but does not provide the specified platform (%s)", req.Config.Image, platform))
	}
	// Docker's client takes any "not found" of a create for a missing image and
	// would pull one: of what else is missing it hears as a bad request.
	defer func() {
		if errdefs.IsNotFound(err) && !errors.As(err, new(*image.Incomplete)) { // which a pull mends
			err = errdefs.ErrInvalidArgument.WithMessage(err.Error())
		}
	}()
	r := container.Record{
		ID: container.NewID(), Name: name, Created: time.Now().UTC(), Image: img.ID.String(), Platform: "linux",
		Status: container.Created, HostConfig: req.HostConfig,
	}
	if r.Config, err = mergeConfig(req.Config, img.Config); err != nil {
		return response, err
	}
	if r.HostConfig == nil {
		r.HostConfig = &mobycontainer.HostConfig{}
	}
	if err := e.defaults(&r); err != nil {
		return response, err
	}
	dropped, err := e.limits(&r)
	if err != nil {
		return response, err
	}
	// What the kernel would refuse at start is refused now.
	if _, err := spec.Resources(r.HostConfig.Resources); err != nil {
		return response, err
	}
	if err := e.chooseDrivers(&r); err != nil {
		return response, err
	}
	if r.Endpoints, err = e.requestedEndpoints(&r, req.NetworkingConfig); err != nil {
		return response, err
	}
	var u undo
	defer func() {
		if err != nil {
			u.run(ctx, e.Log, "creation of container "+r.Name)
		}
	}()
	if err := e.reserveName(&r); err != nil {
		return response, err
	}
	u.add(func(context.Context) error { e.containers.Free(r.Name, r.ID); return nil })
	if err := e.prepareLayer(ctx, &r, img, &u); err != nil {
		return response, err
	}
	if err := os.Mkdir(e.dir(r.ID), 0o700); err != nil {
		return response, err
	}
	u.add(func(context.Context) error { return e.removeDir(r.ID) })
	defer e.Volumes.Settled(r.ID)
	if err := e.prepareMounts(ctx, &r, &u); err != nil {
		return response, err
	}
	c, err := e.containers.Add(r)
	if err != nil {
		return response, err
	}
	e.containerEvent(c.Record(), events.ActionCreate, nil)
	return mobycontainer.CreateResponse{ID: r.ID, Warnings: append(dropped, warnings(r)...)}, nil
}

// warnings say what a container asks for and does not get.
func warnings(r container.Record) []string {
	list := []string{}
	if r.HostConfig.NetworkMode.IsHost() && len(r.HostConfig.PortBindings) > 0 {
		list = append(list, "Published ports are discarded when using host network mode")
	}
	if check := r.Config.Healthcheck; check != nil && len(check.Test) > 0 && check.Test[0] != "NONE" {
		list = append(list, "health checks are not run by this version of davit")
	}
	return list
}

// reserveName takes the wanted name, or a random one.
func (e *Engine) reserveName(r *container.Record) error {
	if r.Name != "" {
		if r.Name[0] == '/' {
			r.Name = r.Name[1:]
		}
		if err := container.CheckName(r.Name); err != nil {
			return err
		}
		return e.containers.Reserve(r.Name, r.ID)
	}
	for attempt := range 20 {
		r.Name = container.RandomName()
		if attempt > 5 {
			r.Name += "_" + r.ID[:6]
		}
		err := e.containers.Reserve(r.Name, r.ID)
		if err == nil || !errdefs.IsAlreadyExists(err) {
			return err
		}
	}
	return fmt.Errorf("no free name found: %w", errdefs.ErrInternal)
}

// chooseDrivers binds the container to its storage and runtime drivers. An
// unknown one fails now, with the names of those that exist.
func (e *Engine) chooseDrivers(r *container.Record) error {
	r.StorageDriver, r.RuntimeDriver = r.Config.Labels[labelStorage], r.Config.Labels[labelRuntime]
	if r.HostConfig.Runtime != "" {
		r.RuntimeDriver = r.HostConfig.Runtime
	}
	if r.StorageDriver == "" {
		r.StorageDriver = e.Drivers.Default(plugin.Storage)
	}
	if r.RuntimeDriver == "" {
		r.RuntimeDriver = e.Drivers.Default(plugin.Runtime)
	}
	if _, err := e.Drivers.Storage(r.StorageDriver); err != nil {
		return badDriver(err)
	}
	if _, err := e.Drivers.Runtime(r.RuntimeDriver); err != nil {
		return badDriver(err)
	}
	// Shown as chosen, as Docker shows its runtime.
	host := *r.HostConfig
	host.Runtime = r.RuntimeDriver
	r.HostConfig = &host
	return nil
}

// badDriver makes an unknown driver a fault of the request: "not found" would
// read as if the container was not.
func badDriver(err error) error {
	if errdefs.IsNotFound(err) {
		return errdefs.ErrInvalidArgument.WithMessage(err.Error())
	}
	return err
}

// prepareLayer unpacks the image where needed and makes the writable layer.
func (e *Engine) prepareLayer(ctx context.Context, r *container.Record, img image.Image, u *undo) error {
	parent, release, err := e.Images.Unpack(ctx, img, r.StorageDriver)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", r.Config.Image, err)
	}
	defer release()
	storage, err := e.Drivers.Storage(r.StorageDriver)
	if err != nil {
		return err
	}
	r.Snapshot = snapshotPrefix + r.ID
	if _, err := storage.Prepare(ctx, r.Snapshot, parent, map[string]string{"dev.davit.container": r.ID}); err != nil {
		return fmt.Errorf("making the container's layer: %w", err)
	}
	u.add(func(ctx context.Context) error { return ignoreNotFound(storage.Remove(ctx, r.Snapshot)) })
	return nil
}

// snapshotPrefix marks the snapshots that belong to containers.
const snapshotPrefix = "davit-"

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
