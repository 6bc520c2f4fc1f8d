package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/core/registry"
)

// APIVersion and MinAPIVersion are the newest and oldest versions of the Docker
// Engine API that davit speaks.
const (
	APIVersion    = "1.51"
	MinAPIVersion = "1.40"
)

// SystemInfo describes engine and host.
func (e *Engine) SystemInfo(ctx context.Context) (system.Info, error) {
	info := system.Info{
		ID: e.ID, Driver: e.Drivers.Default(plugin.Storage), LoggingDriver: "json-file", CgroupDriver: e.CgroupDriver, CgroupVersion: cgroupVersion(),
		KernelVersion: kernelVersion(), OperatingSystem: osName(), OSType: runtime.GOOS, Architecture: unameMachine(), NCPU: runtime.NumCPU(),
		DockerRootDir: e.Root, ServerVersion: e.Version, DefaultRuntime: e.Drivers.Default(plugin.Runtime), Runtimes: map[string]system.RuntimeWithStatus{},
		LiveRestoreEnabled: true, SystemTime: time.Now().Format(time.RFC3339Nano), NGoroutines: runtime.NumGoroutine(),
		MemoryLimit: true, SwapLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true, CPUSet: true, PidsLimit: true, IPv4Forwarding: true,
		IndexServerAddress: registry.DockerHub, RegistryConfig: e.Registries.Info(),
		SecurityOptions:   []string{"name=seccomp,profile=builtin", "name=cgroupns"},
		ExperimentalBuild: e.Experimental,
		Plugins:           system.PluginsInfo{Log: []string{"json-file", "none"}}, Labels: []string{}, Warnings: []string{},
	}
	if cgroupVersion() == "1" {
		info.OomKillDisable = true
		info.SecurityOptions = info.SecurityOptions[:1]
	}
	if e.AppArmor != "" {
		info.SecurityOptions = append([]string{"name=apparmor"}, info.SecurityOptions...)
	}
	if !e.Remap.Empty() {
		info.SecurityOptions = append(info.SecurityOptions, "name=userns")
	}
	info.CDISpecDirs = append([]string{}, e.CDI.Dirs...)
	devices, problems := e.CDI.List()
	for _, name := range devices {
		info.DiscoveredDevices = append(info.DiscoveredDevices, system.DeviceInfo{Source: "cdi", ID: name})
	}
	for _, problem := range problems {
		info.Warnings = append(info.Warnings, "WARNING: "+problem)
	}
	if e.InitPath != "" {
		info.InitBinary = filepath.Base(e.InitPath)
	}
	info.Name, _ = os.Hostname()
	var memory unix.Sysinfo_t
	if unix.Sysinfo(&memory) == nil {
		info.MemTotal = int64(memory.Totalram) * int64(memory.Unit)
	}
	for _, c := range e.containers.All() {
		info.Containers++
		switch c.Record().Status {
		case container.Running:
			info.ContainersRunning++
		case container.Paused:
			info.ContainersPaused++
		default:
			info.ContainersStopped++
		}
	}
	if images, err := e.Images.List(ctx, nil); err == nil {
		info.Images = len(images)
	}
	for _, status := range e.Drivers.List() {
		switch status.Kind {
		case plugin.Storage:
			info.DriverStatus = append(info.DriverStatus, [2]string{"Driver plugin " + status.Driver, string(status.State)})
		case plugin.Network:
			info.Plugins.Network = append(info.Plugins.Network, status.Driver)
		case plugin.Volume:
			info.Plugins.Volume = append(info.Plugins.Volume, status.Driver)
		case plugin.Runtime:
			info.Runtimes[status.Driver] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: status.Path}}
		}
		if status.State != plugin.StateReady && status.LastError != "" {
			info.Warnings = append(info.Warnings, fmt.Sprintf("WARNING: driver plugin %s is %s: %s", status.Name, status.State, status.LastError))
		}
	}
	info.Plugins.Network = append(info.Plugins.Network, "host", "null")
	return info, nil
}

// SystemVersion describes the engine's version.
func (e *Engine) SystemVersion(context.Context) (system.VersionResponse, error) {
	response := system.VersionResponse{
		Platform: system.PlatformInfo{Name: "davit"}, Version: e.Version, APIVersion: APIVersion, Experimental: e.Experimental, MinAPIVersion: MinAPIVersion,
		Os: runtime.GOOS, Arch: runtime.GOARCH, GoVersion: runtime.Version(), KernelVersion: kernelVersion(),
		Components: []system.ComponentVersion{{Name: "Engine", Version: e.Version, Details: map[string]string{
			"ApiVersion": APIVersion, "MinAPIVersion": MinAPIVersion, "Os": runtime.GOOS, "Arch": runtime.GOARCH, "GoVersion": runtime.Version(),
			"KernelVersion": kernelVersion(), "Experimental": strconv.FormatBool(e.Experimental), "GitCommit": "", "BuildTime": "",
		}}},
	}
	for _, status := range e.Drivers.List() {
		response.Components = append(response.Components, system.ComponentVersion{Name: status.Name, Version: status.Version})
	}
	return response, nil
}

// Events implements the API's backend.
func (e *Engine) Events(ctx context.Context, since, until time.Time, f filter.Args, fn func(events.Message) error) error {
	if err := f.Validate("config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume"); err != nil {
		return err
	}
	return e.Bus.Stream(ctx, since, until, f, fn)
}

// DriverPlugins implements the API's backend.
func (e *Engine) DriverPlugins(context.Context) ([]plugin.Status, error) {
	return e.Drivers.List(), nil
}

// UpgradePlugin implements the API's backend.
func (e *Engine) UpgradePlugin(ctx context.Context, name string, o plugin.UpgradeOptions) (plugin.Upgrade, error) {
	return e.Drivers.Upgrade(ctx, name, o)
}

func cgroupVersion() string {
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return "2"
	}
	return "1"
}

func uname() unix.Utsname {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return u
}

func kernelVersion() string { u := uname(); return string(bytes.TrimRight(u.Release[:], "\x00")) }
func unameMachine() string  { u := uname(); return string(bytes.TrimRight(u.Machine[:], "\x00")) }

func osName() string {
	body, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return runtime.GOOS
	}
	for line := range strings.Lines(string(body)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return runtime.GOOS
}
