package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/davit-engine/davit/sdk/monitor/hook"
)

// hooksName is the file with the hooks that run when the container is gone.
const hooksName = "hooks.json"

func (d *Driver) saveHooks(id string, hooks *hook.Set) error {
	if hooks == nil || len(hooks.Poststop) == 0 {
		return nil
	}
	body, err := json.Marshal(hook.Set{Poststop: hooks.Poststop, State: hooks.State})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.dir(id), hooksName), body, 0o600)
}

// poststop runs the hooks of a container that has gone but for its directory. A
// failure is only a warning (runtime-spec, "Lifecycle").
func (d *Driver) poststop(ctx context.Context, id string) {
	if err := d.runPoststop(ctx, id); err != nil {
		d.log.Warn("poststop hooks", "container", id, "error", err)
	}
}

func (d *Driver) runPoststop(ctx context.Context, id string) error {
	body, err := os.ReadFile(filepath.Join(d.dir(id), hooksName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var hooks hook.Set
	if err := json.Unmarshal(body, &hooks); err != nil {
		return fmt.Errorf("reading the hooks: %w", err)
	}
	return hook.RunAll(ctx, "poststop", hooks.Poststop, hooks.State.At("stopped", 0), hooks.State.Bundle, d.spawner.start)
}
