// Package config is davitd's configuration: a TOML file, its defaults and its
// checks. It knows the keys, not what becomes of them.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
)

// Version of davit; set by the linker.
var Version = "dev"

// DefaultPath is the file read when none is named.
const DefaultPath = "/etc/davit/davit.toml"

// Config is the content of the file.
type Config struct {
	Root         string   `toml:"root"`
	Run          string   `toml:"run"`
	Listen       []string `toml:"listen"`
	Group        string   `toml:"group"`
	LogLevel     string   `toml:"log_level"`
	CgroupDriver string   `toml:"cgroup_driver"` // CgroupFS or Systemd
	CgroupParent string   `toml:"cgroup_parent"` // empty: see Parent
	Experimental bool     `toml:"experimental"`
	Init         bool     `toml:"init"`
	InitPath     string   `toml:"init_path"`

	CDISpecDirs []string `toml:"cdi_spec_dirs"`
	UsernsRemap string   `toml:"userns_remap"`

	Defaults   Defaults            `toml:"defaults"`
	Plugins    Plugins             `toml:"plugins"`
	Logs       Logs                `toml:"logs"`
	Network    Network             `toml:"network"`
	Images     Images              `toml:"images"`
	Registries map[string]Registry `toml:"registries"`
	Policies   []Policy            `toml:"policies"`
}

// What makes containers' cgroups: davit itself, or systemd as scope units.
const (
	CgroupFS = "cgroupfs"
	Systemd  = "systemd"
)

// Parent is the cgroup above containers': a path, or the name of a slice where
// systemd makes cgroups.
func (c Config) Parent() string {
	switch {
	case c.CgroupParent != "":
		return c.CgroupParent
	case c.CgroupDriver == Systemd:
		return "system.slice"
	}
	return "/davit"
}

// Defaults name the drivers used where none is named.
type Defaults struct {
	Storage string `toml:"storage"`
	Network string `toml:"network"`
	Runtime string `toml:"runtime"`
	Volume  string `toml:"volume"`
}

// Plugins says where plugins are and how they are run.
type Plugins struct {
	Dirs         []string `toml:"dirs"`
	AutoMTLS     bool     `toml:"auto_mtls"`
	StartTimeout Duration `toml:"start_timeout"`
	CallTimeout  Duration `toml:"call_timeout"`
	// Config holds the settings of each plugin by name; the plugin host checks
	// them against the plugin's manifest.
	Config map[string]map[string]any `toml:"config"`
}

// Logs is the default rotation of containers' logs.
type Logs struct {
	MaxSize Size `toml:"max_size"`
	MaxFile int  `toml:"max_file"`
}

// Network is the engine's own part of networking.
type Network struct {
	NetnsPool  int      `toml:"netns_pool"`
	ResolvConf string   `toml:"resolv_conf"`
	DNS        []string `toml:"dns"`
	DNSSearch  []string `toml:"dns_search"`
	DNSOptions []string `toml:"dns_options"`
}

// Images is how images come from registries, and how large their layers may be.
type Images struct {
	MaxConcurrentDownloads int      `toml:"max_concurrent_downloads"`
	MaxDownloadAttempts    int      `toml:"max_download_attempts"`
	RegistryTimeout        Duration `toml:"registry_timeout"`
	CertsDir               string   `toml:"certs_dir"`
	MaxLayerSize           Size     `toml:"max_layer_size"`
	MaxLayerEntries        int      `toml:"max_layer_entries"`
	MaxPathDepth           int      `toml:"max_path_depth"`
	MinFree                Share    `toml:"min_free"`
}

// Registry is how one registry is reached; of the key "*" how those are that have no
// entry.
type Registry struct {
	Mirrors    []string `toml:"mirrors"`
	Blocked    bool     `toml:"blocked"`
	Insecure   bool     `toml:"insecure"`
	CA         string   `toml:"ca"`
	ClientCert string   `toml:"client_cert"`
	ClientKey  string   `toml:"client_key"`
}

// Policy is what images must be to come in from the repositories below a name.
type Policy struct {
	Match    string   `toml:"match"`
	Accept   string   `toml:"accept"`
	Keys     []string `toml:"keys"`
	SignedAs string   `toml:"signed_as"`
}

// Default is the configuration without a file.
func Default() Config {
	return Config{
		Root:         "/var/lib/davit",
		Run:          "/run/davit",
		Listen:       []string{"unix:///run/davit.sock"},
		Group:        "davit",
		LogLevel:     "info",
		CgroupDriver: CgroupFS,
		CDISpecDirs:  []string{"/etc/cdi", "/var/run/cdi"},
		Defaults:     Defaults{Storage: "overlay", Network: "bridge", Runtime: "native", Volume: "local"},
		Plugins: Plugins{
			Dirs:         []string{"/usr/local/lib/davit/plugins", "/usr/lib/davit/plugins"},
			AutoMTLS:     true,
			StartTimeout: Duration(defaultStart),
			CallTimeout:  Duration(defaultCall),
		},
		Logs:    Logs{MaxSize: 100 << 20, MaxFile: 3},
		Network: Network{NetnsPool: 4, ResolvConf: "/etc/resolv.conf"},
		Images: Images{
			MaxConcurrentDownloads: 3, MaxDownloadAttempts: 5,
			RegistryTimeout: Duration(defaultSilence), CertsDir: "/etc/davit/certs.d",
			MaxLayerSize: 256 << 30, MaxLayerEntries: 10_000_000, MaxPathDepth: 1000,
		},
	}
}

// Load reads a file over the defaults and checks the result. With an empty path
// it reads [DefaultPath], which need not exist.
func Load(path string) (Config, error) {
	name := path
	if name == "" {
		name = DefaultPath
	}
	data, err := os.ReadFile(name)
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration: %w", err)
	}
	return Parse(name, data)
}

// Parse is Load for the content of a file; the name is for messages.
func Parse(name string, data []byte) (Config, error) {
	c := Default()
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return Config{}, explain(name, err)
	}
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// LevelTrace is below slog's own levels: what drivers say of each of their steps.
const LevelTrace = slog.LevelDebug - 4

// Level is the log level.
func (c Config) Level() slog.Level {
	level, err := parseLevel(c.LogLevel)
	if err != nil {
		return slog.LevelInfo // Validate has refused it
	}
	return level
}

func parseLevel(name string) (slog.Level, error) {
	if strings.EqualFold(name, "trace") {
		return LevelTrace, nil
	}
	var level slog.Level
	err := level.UnmarshalText([]byte(name))
	return level, err
}

// invalid makes an error of the kind that all wrong configuration has.
func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}
