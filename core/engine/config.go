package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/image"
	"github.com/davit-engine/davit/core/logs"
	"github.com/davit-engine/davit/sdk/runtime"
)

func platformMatches(want string, img image.Image) bool {
	parsed, err := platforms.Parse(want)
	if err != nil {
		return false
	}
	return platforms.OnlyStrict(parsed).Match(platforms.Normalize(img.Config.Platform))
}

// mergeConfig fills what the user left open with the image's configuration, as
// Docker does: lists are added to, commands replaced together.
func mergeConfig(user *mobycontainer.Config, img dockerspec.DockerOCIImage) (*mobycontainer.Config, error) {
	c := *user
	from := img.Config
	if c.User == "" {
		c.User = from.User
	}
	c.ExposedPorts = maps.Clone(c.ExposedPorts)
	for exposed := range from.ExposedPorts {
		port, err := network.ParsePort(exposed)
		if err != nil {
			return nil, fmt.Errorf("port %q of the image: %w: %w", exposed, err, errdefs.ErrInvalidArgument)
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = network.PortSet{}
		}
		c.ExposedPorts[port] = struct{}{}
	}
	c.Env = mergeEnv(from.Env, c.Env)
	if len(c.Labels) > 0 || len(from.Labels) > 0 {
		labels := maps.Clone(from.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, c.Labels)
		c.Labels = labels
	}
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = from.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = from.Entrypoint
		}
	} else if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil // --entrypoint "" clears the image's
	}
	if c.WorkingDir == "" {
		c.WorkingDir = from.WorkingDir
	}
	if c.WorkingDir != "" && !strings.HasPrefix(c.WorkingDir, "/") {
		return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir))
	}
	if len(from.Volumes) > 0 {
		volumes := maps.Clone(from.Volumes)
		maps.Copy(volumes, c.Volumes)
		c.Volumes = volumes
	}
	if c.StopSignal == "" {
		c.StopSignal = from.StopSignal
	}
	if c.Healthcheck == nil && from.Healthcheck != nil {
		c.Healthcheck = from.Healthcheck
	}
	if len(c.Shell) == 0 {
		c.Shell = from.Shell
	}
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return nil, errdefs.ErrInvalidArgument.WithMessage("no command specified")
	}
	return &c, nil
}

// mergeEnv takes the image's variables and then the user's; the user's win.
func mergeEnv(base, user []string) []string {
	merged := slices.Clone(user)
	for _, entry := range slices.Backward(base) {
		key, _, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(user, func(own string) bool { k, _, _ := strings.Cut(own, "="); return k == key }) {
			merged = slices.Insert(merged, 0, entry)
		}
	}
	return merged
}

// defaults fills in and checks a container's configuration; what it changes is
// a copy.
func (e *Engine) defaults(r *container.Record) error {
	host := *r.HostConfig
	r.HostConfig = &host
	if host.NetworkMode == "" || host.NetworkMode == network.NetworkDefault {
		host.NetworkMode = network.NetworkBridge
	}
	if host.RestartPolicy.Name == "" {
		host.RestartPolicy.Name = mobycontainer.RestartPolicyDisabled
	}
	if err := mobycontainer.ValidateRestartPolicy(host.RestartPolicy); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if host.AutoRemove && !host.RestartPolicy.IsNone() {
		return errdefs.ErrInvalidArgument.WithMessage("can't create 'AutoRemove' container with restart policy")
	}
	if host.IpcMode.IsEmpty() {
		host.IpcMode = mobycontainer.IPCModePrivate
	}
	e.shareNamespaces(&host)
	if host.ShmSize == 0 {
		host.ShmSize = 64 << 20
	}
	if host.ShmSize < 0 {
		return errdefs.ErrInvalidArgument.WithMessage("SHM size can not be less than 0")
	}
	if len(host.Links) > 0 && !host.NetworkMode.IsUserDefined() {
		return errLinks
	}
	if err := e.checkRemap(&host); err != nil {
		return err
	}
	if _, err := e.initProgram(&host); err != nil {
		return err
	}
	if err := e.CDI.Check(host.DeviceRequests); err != nil {
		return err
	}
	switch host.LogConfig.Type {
	case "", "json-file":
		host.LogConfig.Type = "json-file"
	case "none":
	default:
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("logger: no log driver named '%s' is registered", host.LogConfig.Type))
	}
	if host.LogConfig.Config == nil {
		host.LogConfig.Config = map[string]string{}
	}
	if _, err := e.logConfig(host.LogConfig); err != nil {
		return err
	}
	if r.Config.Hostname == "" && !host.UTSMode.IsHost() && !host.NetworkMode.IsHost() {
		config := *r.Config
		config.Hostname = r.ID[:12]
		r.Config = &config
	}
	return nil
}

// initProgram is the program that becomes the container's first process, empty
// if its own is to be that. Where the container sees other processes than its
// own there is an init already.
func (e *Engine) initProgram(host *mobycontainer.HostConfig) (string, error) {
	wanted := e.Init
	if host.Init != nil {
		wanted = *host.Init
	}
	if !wanted || !host.PidMode.IsPrivate() {
		return "", nil
	}
	if e.InitPath == "" {
		return "", errdefs.ErrFailedPrecondition.WithMessage("--init: davit-init is not installed beside davitd or in ../lib/davit: install it or set init_path in the engine's configuration")
	}
	return e.InitPath, nil
}

// logConfig reads a container's log options over the engine's defaults.
func (e *Engine) logConfig(config mobycontainer.LogConfig) (logs.Config, error) {
	return logs.ParseConfig(config.Config, logs.Config{MaxSize: e.LogMaxSize, MaxFile: e.LogMaxFile})
}

// logOf is the log of a container as its runtime driver writes it.
func (e *Engine) logOf(r container.Record) (*runtime.Log, error) {
	config, err := e.logConfig(r.HostConfig.LogConfig)
	if err != nil {
		return nil, err
	}
	attributes, err := config.Attributes(logs.Facts{
		ID: r.ID, Name: r.Name, ImageID: r.Image, ImageName: r.Config.Image, DaemonName: "davit",
		Command: strings.Join(append(slices.Clone(r.Config.Entrypoint), r.Config.Cmd...), " "), Labels: r.Config.Labels, Env: r.Config.Env,
	})
	if err != nil {
		return nil, err
	}
	return &runtime.Log{Path: e.logPath(r.ID), MaxSize: config.MaxSize, MaxFile: config.MaxFile, Compress: config.Compress, Attributes: attributes}, nil
}
