// Package engine is davit's use cases: what happens, in which order, when a
// container is created, started, stopped or removed. It calls drivers, images,
// networks and volumes; each step has an undo. It never knows how a layer is
// done.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/sys/user"
	"go.etcd.io/bbolt"
	"log/slog"

	"github.com/davit-engine/davit/core/cdi"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/event"
	"github.com/davit-engine/davit/core/spec"
)

// Options are what an engine is made of.
type Options struct {
	ID   string // of this engine; stable over restarts
	Root string // persistent directory
	Run  string // runtime directory
	// CgroupDriver is what makes containers' cgroups, "cgroupfs" or "systemd", and
	// CgroupParent a path or, with systemd, a slice.
	CgroupDriver string
	CgroupParent string
	AppArmor     string // profile of containers that name none; empty: they have none
	Version      string
	Experimental bool
	Init         bool   // containers have an init unless they say otherwise
	InitPath     string // the program that is it; empty: there is none
	CDI          cdi.Devices
	Remap        user.IdentityMapping // of containers' user namespaces; empty: they have none
	LogMaxSize   int64                // default of log-opt max-size, bytes
	LogMaxFile   int
	DB           *bbolt.DB
	Bus          *event.Bus
	Drivers      Drivers
	Registries   Registries
	Images       Images
	Networks     Networks
	Volumes      Volumes
	Log          *slog.Logger
}

// Engine implements the API's backend.
type Engine struct {
	Options
	containers *container.Store
	execs      *execs
	attaching  attachments
	kernel     spec.Kernel
	// imageAccounts has the passwd and group files of images, by ID.
	imageAccounts sync.Map

	// life ends with Close; background work belongs to it and is waited for.
	life       context.Context
	end        context.CancelFunc
	background sync.WaitGroup
	// recovered is closed when start-up recovery is over.
	recovered chan struct{}
	started   time.Time
}

// New makes an engine; [Engine.Recover] brings it to life.
func New(o Options) (*Engine, error) {
	containers, err := container.NewStore(o.DB)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(o.Root, "containers"), 0o700); err != nil {
		return nil, err
	}
	// The engine's life is its own, not a caller's.
	life, end := context.WithCancel(context.Background())
	return &Engine{
		Options: o, containers: containers, execs: newExecs(), kernel: spec.DetectKernel(), life: life, end: end,
		recovered: make(chan struct{}), started: time.Now(),
	}, nil
}

// Close stops watching and waits for background work. Containers go on.
func (e *Engine) Close() {
	e.end()
	e.background.Wait()
}

// ready waits until recovery is over: before, records may be out of date.
func (e *Engine) ready(ctx context.Context) error {
	select {
	case <-e.recovered:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the engine to take its containers over: %w", ctx.Err())
	case <-e.life.Done():
		return errors.New("the engine is shutting down")
	}
}

// find answers a container when the engine is ready.
func (e *Engine) find(ctx context.Context, ref string) (*container.Container, error) {
	if err := e.ready(ctx); err != nil {
		return nil, err
	}
	return e.containers.Find(ref)
}

// inBackground runs fn as work the engine waits for.
func (e *Engine) inBackground(fn func(ctx context.Context)) {
	e.background.Go(func() { fn(e.life) })
}

// dir is a container's directory.
func (e *Engine) dir(id string) string { return filepath.Join(e.Root, "containers", id) }

func (e *Engine) logPath(id string) string { return filepath.Join(e.dir(id), id+"-json.log") }

// containerEvent emits an event of a container with Docker's attributes.
func (e *Engine) containerEvent(r container.Record, action events.Action, extra map[string]string) {
	attributes := make(map[string]string, len(r.Config.Labels)+len(extra)+2)
	for key, value := range r.Config.Labels {
		attributes[key] = value
	}
	for key, value := range extra {
		attributes[key] = value
	}
	attributes["name"], attributes["image"] = r.Name, r.Config.Image
	e.Bus.Emit(events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: r.ID, Attributes: attributes}})
}

// undo collects what has to be taken back when a later step fails.
type undo struct{ steps []func(context.Context) error }

func (u *undo) add(step func(context.Context) error) { u.steps = append(u.steps, step) }

// run takes everything back in reverse; the caller's context may be over, the
// undoing still happens, within bounds.
func (u *undo) run(ctx context.Context, log *slog.Logger, what string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	for i := len(u.steps) - 1; i >= 0; i-- {
		if err := u.steps[i](ctx); err != nil {
			log.Error("undoing", "what", what, "error", err)
		}
	}
	u.steps = nil
}
