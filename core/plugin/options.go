package plugin

import (
	"log/slog"
	"time"
)

// Options say where plugins are and how they are run. Zero values get the
// defaults named here.
type Options struct {
	Dirs     []string // searched in this order; the first plugin of a name wins
	Root     string   // the engine's state directory; plugins get Root/drivers/<name>
	Run      string   // the engine's run directory; plugins get Run/drivers/<name>
	EngineID string   // tags what plugins make

	// Config holds the user's settings of each plugin by its manifest's name.
	Config map[string]map[string]any
	// Defaults name the driver used where none is named.
	Defaults map[Kind]string

	AutoMTLS     bool
	StartTimeout time.Duration // from launch to configured; 30 s
	CallTimeout  time.Duration // of calls that come without a deadline; 2 min
	// Keepalive is how often a silent plugin is asked for a sign of life, 10 s;
	// gRPC allows no less. KeepaliveTimeout is how long it may take to answer, 3 s.
	Keepalive        time.Duration
	KeepaliveTimeout time.Duration

	Logger *slog.Logger // default: nothing is logged
}

func (o Options) withDefaults() Options {
	if o.StartTimeout <= 0 {
		o.StartTimeout = 30 * time.Second
	}
	if o.CallTimeout <= 0 {
		o.CallTimeout = 2 * time.Minute
	}
	if o.Keepalive <= 0 {
		o.Keepalive = 10 * time.Second
	}
	if o.KeepaliveTimeout <= 0 {
		o.KeepaliveTimeout = 3 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
