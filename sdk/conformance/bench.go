package conformance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/davit-engine/davit/sdk/network"
	"github.com/davit-engine/davit/sdk/network/networkgrpc"
	"github.com/davit-engine/davit/sdk/runtime"
	"github.com/davit-engine/davit/sdk/runtime/runtimegrpc"
	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/storage/storagegrpc"
	"github.com/davit-engine/davit/sdk/volume"
	"github.com/davit-engine/davit/sdk/volume/volumegrpc"
)

// bench is where a plugin is judged: its directories, and its process at present.
type bench struct {
	o     Options
	dir   string          // everything of the bench is below it
	count int             // checks so far
	plug  *plug           // nil between a process's end and the next start
	known []string        // features
	bare  map[string]bool // files there with no resource
	links []string        // what is in the host's network with no resource
	// groups are the cgroups of containers that are there with no resource.
	groups []string
	// sockets are the directories of all processes so far, by which they are known.
	sockets []string
}

func newBench(o Options) (*bench, error) {
	dir, err := os.MkdirTemp(o.Dir, "davit-kit-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for the plugin: %w", err)
	}
	b := &bench{o: o, dir: dir}
	for _, sub := range []string{b.root(), b.run(), b.scratch()} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("making a directory for the plugin: %w", err), os.RemoveAll(dir))
		}
	}
	switch o.Kind {
	case Network:
		err = b.newHost()
	case Runtime:
		err = b.newRootfs()
	case Storage, Volume:
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return b, nil
}

func (b *bench) root() string    { return filepath.Join(b.dir, "root") }
func (b *bench) run() string     { return filepath.Join(b.dir, "run") }
func (b *bench) scratch() string { return filepath.Join(b.dir, "tmp") }

// start makes sure that a configured process serves.
func (b *bench) start(ctx context.Context) error {
	if b.plug != nil && b.plug.alive() {
		return nil
	}
	b.kill()
	p, err := launch(ctx, b.o, b.root(), b.run())
	if err != nil {
		return err
	}
	b.plug, b.known = p, p.features
	b.sockets = append(b.sockets, p.sockets)
	if b.bare == nil {
		// Files that the driver keeps whatever it holds are made with its first
		// resource; what is there beyond them in the end is left behind.
		if err := b.warm(ctx); err != nil {
			return err
		}
		if b.bare, err = b.files(); err == nil {
			b.groups, err = b.cgroups()
		}
	}
	return err
}

// warm has the driver make one resource and remove it. Whether that works is for
// the checks to say.
func (b *bench) warm(ctx context.Context) error {
	switch b.o.Kind {
	case Storage:
		if _, err := b.storage().Prepare(ctx, "kit-warm", "", nil); err == nil {
			_ = b.storage().Remove(ctx, "kit-warm")
		}
	case Volume:
		if _, err := b.volume().Create(ctx, "kit-warm", b.o.DriverOptions, nil); err == nil {
			_ = b.volume().Remove(ctx, "kit-warm")
		}
	case Network:
		if err := b.warmNetwork(ctx); err != nil {
			return err
		}
	case Runtime:
		if err := b.warmRuntime(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// kill ends the process as a crash would.
func (b *bench) kill() {
	if b.plug != nil {
		b.plug.kill()
		b.plug = nil
	}
}

// again kills the process and starts another one over what the first one left.
func (b *bench) again(ctx context.Context) error {
	b.kill()
	return b.start(ctx)
}

func (b *bench) features() []string { return b.known }

func (b *bench) storage() *storagegrpc.Client { return storagegrpc.NewClient(b.plug.conn) }
func (b *bench) volume() *volumegrpc.Client   { return volumegrpc.NewClient(b.plug.conn) }
func (b *bench) network() *networkgrpc.Client { return networkgrpc.NewClient(b.plug.conn) }
func (b *bench) runtime() *runtimegrpc.Client { return runtimegrpc.NewClient(b.plug.conn) }

var (
	_ network.Driver = (*networkgrpc.Client)(nil)
	_ runtime.Driver = (*runtimegrpc.Client)(nil)
	_ storage.Driver = (*storagegrpc.Client)(nil)
	_ volume.Driver  = (*volumegrpc.Client)(nil)
)

// files are what is in the plugin's directories.
func (b *bench) files() (map[string]bool, error) {
	files := map[string]bool{}
	for _, dir := range []string{b.root(), b.run()} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			files[path] = true
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("looking for what the plugin keeps: %w", err)
		}
	}
	return files, nil
}

// close ends the plugin and removes its directories, but not what is mounted in
// them.
func (b *bench) close() error {
	b.kill()
	var left error
	if b.o.host != nil {
		left = b.o.host.Close()
	}
	left = errors.Join(left, b.removeCgroups())
	mounts, err := mountsBelow(b.dir)
	if err != nil {
		return errors.Join(left, err)
	}
	if len(mounts) > 0 {
		return fmt.Errorf("mounts are left below %s, which is kept: %v", b.dir, mounts)
	}
	return errors.Join(left, os.RemoveAll(b.dir))
}
