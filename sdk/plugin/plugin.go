// Package plugin turns drivers into a davit plugin process.
//
// A plugin's main fills in a [Plugin] and calls [Serve]. The engine starts the
// process, checks the handshake, calls Configure once and then the drivers.
package plugin

import (
	"context"

	"github.com/hashicorp/go-hclog"

	"github.com/davit-engine/davit/sdk/network"
	"github.com/davit-engine/davit/sdk/runtime"
	"github.com/davit-engine/davit/sdk/storage"
	"github.com/davit-engine/davit/sdk/volume"
)

// Setup is what the engine tells a plugin before the first driver call.
type Setup struct {
	EngineID string // tags every kernel resource the plugin makes
	Root     string // directory for state that survives reboots; exists, 0700
	Run      string // directory for state that does not; exists, 0700
	// Config is checked against the manifest's schema, defaults filled in. The
	// types are string, int64, bool and []string; a duration is a string for
	// time.ParseDuration, a size an int64 of bytes. A key without default that
	// the user left out is absent.
	Config map[string]any
	Logger hclog.Logger // lines appear in the engine's log
}

// Keep remembers what the engine said. It is the Configure of plugins that have
// nothing to do then.
func (s *Setup) Keep(_ context.Context, given Setup) error {
	*s = given
	return nil
}

// Plugin describes a plugin process. Exactly the drivers that are not nil are
// served.
type Plugin struct {
	Name     string // as in the manifest, e.g. "volume-local"
	Version  string
	Features []string

	// Configure is called once before any driver call. An error names the
	// configuration key that is wrong.
	Configure func(ctx context.Context, s Setup) error
	// Health says why the plugin cannot work at the moment; nil means it can. May
	// be nil.
	Health func(ctx context.Context) error
	// Shutdown is called before the engine stops the process. May be nil.
	Shutdown func(ctx context.Context) error

	Storage storage.Driver
	Network network.Driver
	Runtime runtime.Driver
	Volume  volume.Driver
}
