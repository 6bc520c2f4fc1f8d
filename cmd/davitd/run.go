package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/config"
	"github.com/davit-engine/davit/core/api"
	"github.com/davit-engine/davit/core/apparmor"
	"github.com/davit-engine/davit/core/cdi"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/engine"
	"github.com/davit-engine/davit/core/event"
	"github.com/davit-engine/davit/core/image"
	"github.com/davit-engine/davit/core/image/fetch"
	"github.com/davit-engine/davit/core/image/room"
	"github.com/davit-engine/davit/core/image/unpack"
	"github.com/davit-engine/davit/core/image/verify"
	"github.com/davit-engine/davit/core/network"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/core/registry"
	"github.com/davit-engine/davit/core/resolvconf"
	"github.com/davit-engine/davit/core/state"
	"github.com/davit-engine/davit/core/userns"
	"github.com/davit-engine/davit/core/volume"
	"github.com/davit-engine/davit/sdk/footprint"
)

// readyTimeout bounds how long start-up waits for plugins; one that is missing
// then is an error of the calls that need it, not of the engine.
const readyTimeout = 30 * time.Second

// booted is a directory that exists where systemd is the init (sd_booted(3)).
const booted = "/run/systemd/system"

// checkSystemd refuses to leave cgroups to a systemd that does not run.
func checkSystemd(c config.Config) error {
	if c.CgroupDriver != config.Systemd {
		return nil
	}
	if _, err := os.Lstat(booted); err != nil {
		return fmt.Errorf("cgroup_driver = %q: no systemd is running here: %w", c.CgroupDriver, err)
	}
	return nil
}

// defaultProfile loads the AppArmor profile of containers that name none and answers
// its name; empty where there is nothing that would enforce or load it.
func defaultProfile(ctx context.Context, log *slog.Logger) string {
	if !apparmor.Enabled() {
		return ""
	}
	if err := apparmor.Load(ctx); err != nil {
		log.Warn("containers have no AppArmor profile unless they name one", "error", err)
		return ""
	}
	return apparmor.Default
}

// run is the engine's life, in this order: state, API, plugins, recovery. The API
// answers before plugins are up; calls that need them wait.
func run(ctx context.Context, c config.Config, log *slog.Logger) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("davitd makes namespaces, mounts and cgroups and must run as root")
	}
	if err := checkSystemd(c); err != nil {
		return err
	}
	for _, dir := range []string{c.Root, c.Run} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("making %s: %w", dir, err)
		}
	}
	remap, err := userns.Load(c.UsernsRemap)
	if err != nil {
		return err
	}
	id, err := engineID(c.Root)
	if err != nil {
		return err
	}
	db, err := state.Open(c.Root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	bus := event.NewBus()
	plugins, err := plugin.New(plugin.Options{
		Dirs: c.Plugins.Dirs, Root: c.Root, Run: c.Run, EngineID: id, Config: c.Plugins.Config,
		Defaults: map[plugin.Kind]string{
			plugin.Storage: c.Defaults.Storage, plugin.Network: c.Defaults.Network,
			plugin.Runtime: c.Defaults.Runtime, plugin.Volume: c.Defaults.Volume,
		},
		AutoMTLS: c.Plugins.AutoMTLS, StartTimeout: time.Duration(c.Plugins.StartTimeout), CallTimeout: time.Duration(c.Plugins.CallTimeout),
		Logger: log,
	})
	if err != nil {
		return err
	}
	registries := registry.New(registryOptions(c))
	images, err := image.Open(ctx, image.Options{
		Root: filepath.Join(c.Root, "images"), Drivers: plugins, Registries: registries,
		Downloads: fetch.Options{Parallel: c.Images.MaxConcurrentDownloads, Attempts: c.Images.MaxDownloadAttempts},
		Policy:    policy(c),
		Layers:    unpack.Limits{Size: int64(c.Images.MaxLayerSize), Entries: c.Images.MaxLayerEntries, Depth: c.Images.MaxPathDepth},
		Room:      room.Limit{Bytes: c.Images.MinFree.Bytes, Percent: c.Images.MinFree.Percent, Setting: "images.min_free"},
		Emit:      bus.Emit, Log: log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	networks, err := network.New(network.Options{
		DB: db, Driver: plugins.Network, DefaultDriver: c.Defaults.Network, NetnsDir: filepath.Join(c.Run, "netns"),
		PoolSize: c.Network.NetnsPool, Resolver: resolvconf.NewHostFile(c.Network.ResolvConf), DNS: overrides(c), Emit: bus.Emit, Log: log,
	})
	if err != nil {
		return err
	}
	defer networks.Close()
	volumes, err := volume.New(volume.Options{DB: db, Driver: plugins.Volume, DefaultDriver: c.Defaults.Volume, NewName: container.NewID, Emit: bus.Emit})
	if err != nil {
		return err
	}
	core, err := engine.New(engine.Options{
		ID: id, Root: c.Root, Run: c.Run, CgroupDriver: c.CgroupDriver, CgroupParent: c.Parent(), AppArmor: defaultProfile(ctx, log), Version: config.Version, Experimental: c.Experimental,
		Remap: remap, Init: c.Init, InitPath: findInit(c), CDI: cdi.Devices{Dirs: c.CDISpecDirs},
		LogMaxSize: int64(c.Logs.MaxSize), LogMaxFile: c.Logs.MaxFile,
		DB: db, Bus: bus, Drivers: plugins, Registries: registries, Images: images, Networks: networks, Volumes: volumes, Log: log,
	})
	if err != nil {
		return err
	}
	server, err := listen(ctx, c, api.New(api.Options{Backend: core, Log: log, Version: config.Version, Experimental: c.Experimental}), log)
	if err != nil {
		return err
	}
	plugins.OnRestart(core.DriverRestarted)
	if err := plugins.Start(ctx); err != nil {
		return errors.Join(err, server.close())
	}
	var recovery sync.WaitGroup
	recovery.Go(func() { recoverAll(ctx, plugins, images, core, log) })
	log.Info("davit is up", "version", config.Version, "listen", strings.Join(c.Listen, " "), "id", id)

	failed := server.serve(ctx)
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	// First nobody new, then the work that goes on, then the plugins it needs.
	err = errors.Join(failed, server.close())
	recovery.Wait()
	core.Close()
	return errors.Join(err, plugins.Close())
}

// recoverAll takes over what runs and finishes what a crash cut off, when the
// drivers are there.
func recoverAll(ctx context.Context, plugins *plugin.Host, images *image.Store, core *engine.Engine, log *slog.Logger) {
	ready, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := plugins.Ready(ready); err != nil && ctx.Err() == nil {
		log.Error("not all plugins are ready", "error", err)
	}
	if err := core.Recover(ctx); err != nil && ctx.Err() == nil {
		log.Error("taking containers over", "error", err)
	}
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	images.Recover(ctx)
	if err := footprint.Shrink(); err != nil {
		log.Debug("giving back memory of the start", "error", err)
	}
}

// engineID names this engine for good: what drivers make carries it.
func engineID(root string) (string, error) {
	path := filepath.Join(root, "engine-id")
	body, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(body))) == 64 {
		return strings.TrimSpace(string(body)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	id := container.NewID()
	if err := os.WriteFile(path+".new", []byte(id+"\n"), 0o600); err != nil {
		return "", err
	}
	return id, os.Rename(path+".new", path)
}

func registryOptions(c config.Config) registry.Options {
	o := registry.Options{Hosts: map[string]registry.Host{}, CertsDir: c.Images.CertsDir, Silence: time.Duration(c.Images.RegistryTimeout)}
	for name, r := range c.Registries {
		o.Hosts[name] = registry.Host{Mirrors: r.Mirrors, Blocked: r.Blocked, Insecure: r.Insecure, CA: r.CA, Cert: r.ClientCert, Key: r.ClientKey}
	}
	return o
}

func policy(c config.Config) (p verify.Policy) {
	for _, r := range c.Policies {
		p.Rules = append(p.Rules, verify.Rule{Match: r.Match, Accept: verify.Accept(r.Accept), Keys: r.Keys, SignedAs: r.SignedAs})
	}
	return p
}

func overrides(c config.Config) resolvconf.Overrides {
	o := resolvconf.Overrides{Search: c.Network.DNSSearch, Options: c.Network.DNSOptions}
	for _, text := range c.Network.DNS {
		o.Servers = append(o.Servers, netip.MustParseAddr(text)) // checked with the configuration
	}
	return o
}

// umask keeps sockets private until they have their owner.
func umask(mask int, fn func() error) error {
	old := unix.Umask(mask)
	defer unix.Umask(old)
	return fn()
}
