package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/go-connections/nat"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// request turns flags, image and command into what the API wants.
func (f *createFlags) request(args []string) (client.ContainerCreateOptions, error) {
	o := client.ContainerCreateOptions{Config: &f.config, HostConfig: &f.host, Name: f.name}
	c, h := &f.config, &f.host
	c.Image, c.Cmd = args[0], args[1:]
	c.Tty, c.OpenStdin = f.tty, f.interactive
	h.AutoRemove, h.VolumeDriver = f.rm, f.volumeDriver
	h.PidMode, h.IpcMode, h.UTSMode = container.PidMode(f.pid), container.IpcMode(f.ipc), container.UTSMode(f.uts)
	h.CgroupnsMode, h.UsernsMode = container.CgroupnsMode(f.cgroupns), container.UsernsMode(f.userns)
	if f.set.Changed("entrypoint") {
		c.Entrypoint = []string{f.entrypoint}
	}
	if f.set.Changed("stop-timeout") {
		c.StopTimeout = &f.stopTimeout
	}
	if f.set.Changed("init") {
		h.Init = &f.init
	}
	if err := f.checkModes(); err != nil {
		return o, err
	}
	steps := []func() error{f.readLimits, f.readRates, f.readDevices, f.readEnvironment, f.readNetwork, f.readPorts, f.readMounts, f.readSecurity, f.readHealth, f.readRestart}
	for _, step := range steps {
		if err := step(); err != nil {
			return o, err
		}
	}
	var err error
	if o.Platform, err = parsePlatform(f.platform); err != nil {
		return o, err
	}
	o.NetworkingConfig, err = f.endpoints()
	return o, err
}

// checkModes refuses namespaces that do not exist.
func (f *createFlags) checkModes() error {
	h := &f.host
	switch {
	case !h.PidMode.Valid():
		return errors.New("--pid: invalid PID mode")
	case !h.UTSMode.Valid():
		return errors.New("--uts: invalid UTS mode")
	case !h.UsernsMode.Valid():
		return errors.New("--userns: invalid USER mode")
	case !h.CgroupnsMode.Valid():
		return errors.New("--cgroupns: invalid CGROUP mode")
	}
	return nil
}

func (f *createFlags) readLimits() (err error) {
	if f.host.Resources, err = f.resources(); err != nil {
		return err
	}
	for _, text := range f.ulimits {
		limit, err := units.ParseUlimit(text)
		if err != nil {
			return fmt.Errorf("invalid argument %q for \"--ulimit\" flag: %w", text, err)
		}
		f.host.Ulimits = append(f.host.Ulimits, limit)
	}
	return nil
}

func (f *createFlags) readEnvironment() (err error) {
	if f.config.Env, err = environment(f.envFile, f.env); err != nil {
		return err
	}
	labels, err := readLines(f.labelFile)
	if err != nil {
		return err
	}
	f.config.Labels = pairs(append(labels, f.labels...))
	f.host.Annotations, f.host.Sysctls, f.host.StorageOpt = pairs(f.annotations), pairs(f.sysctls), pairs(f.storageOpts)
	f.host.LogConfig = container.LogConfig{Type: f.logDriver, Config: pairs(f.logOpts)}
	return nil
}

func (f *createFlags) readNetwork() (err error) {
	f.host.NetworkMode = network.NetworkDefault
	if len(f.networks) > 0 {
		name, _, _ := strings.Cut(f.networks[0], ",")
		f.host.NetworkMode = container.NetworkMode(strings.TrimPrefix(name, "name="))
	}
	for _, domain := range f.dnsSearch {
		if !isDomain(domain) {
			return fmt.Errorf("invalid argument %q for \"--dns-search\" flag: %s is not a valid domain", domain, domain)
		}
	}
	f.host.Links, f.host.DNSSearch, f.host.DNSOptions = f.links, f.dnsSearch, f.dnsOptions
	for _, extra := range f.addHosts {
		// host=ip is the newer form.
		if host, ip, ok := strings.Cut(extra, "="); ok && !strings.Contains(host, ":") {
			extra = host + ":" + ip
		}
		if !strings.Contains(extra, ":") {
			return fmt.Errorf("invalid argument %q for \"--add-host\" flag: bad format for add-host: %q", extra, extra)
		}
		f.host.ExtraHosts = append(f.host.ExtraHosts, extra)
	}
	f.host.DNS, err = addresses("dns", f.dns)
	return err
}

// isDomain says whether a search domain is one; "." is none at all.
func isDomain(text string) bool {
	if text == "." {
		return true
	}
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	for label := range strings.SplitSeq(strings.TrimSuffix(text, "."), ".") {
		other := func(r rune) bool { return !letter(r) && (r < '0' || r > '9') && r != '-' }
		if label == "" || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") || strings.ContainsFunc(label, other) {
			return false
		}
	}
	return strings.ContainsFunc(text, letter)
}

// endpoints are the networks with their settings; addresses and aliases are those
// of the first.
func (f *createFlags) endpoints() (*network.NetworkingConfig, error) {
	config := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
	list := f.networks
	if len(list) == 0 {
		list = []string{network.NetworkDefault}
	}
	for i, text := range list {
		settings := &network.EndpointSettings{}
		name, advanced, _ := strings.Cut(text, ",")
		name = strings.TrimPrefix(name, "name=")
		ip, ip6, mac := "", "", ""
		if i == 0 {
			settings.Aliases, ip, ip6, mac = f.aliases, f.ip, f.ip6, f.mac
		}
		for field := range strings.SplitSeq(advanced, ",") {
			key, value, _ := strings.Cut(field, "=")
			switch key {
			case "":
			case "driver-opt":
				option, text, _ := strings.Cut(value, "=")
				if settings.DriverOpts == nil {
					settings.DriverOpts = map[string]string{}
				}
				settings.DriverOpts[option] = text
			case "gw-priority":
				priority, err := strconv.Atoi(value)
				if err != nil {
					return nil, fmt.Errorf("invalid gw-priority (%s): %w", value, err)
				}
				settings.GwPriority = priority
			case "alias":
				settings.Aliases = append(settings.Aliases, value)
			case "ip":
				ip = value
			case "ip6":
				ip6 = value
			case "mac-address":
				mac = value
			default:
				return nil, fmt.Errorf("invalid field key %s", key)
			}
		}
		for _, address := range []struct {
			text, flag string
		}{{ip, "ip"}, {ip6, "ip6"}} {
			if address.text == "" {
				continue
			}
			parsed, err := addresses(address.flag, []string{address.text})
			if err != nil {
				return nil, err
			}
			if settings.IPAMConfig == nil {
				settings.IPAMConfig = &network.EndpointIPAMConfig{}
			}
			if address.flag == "ip" {
				settings.IPAMConfig.IPv4Address = parsed[0]
			} else {
				settings.IPAMConfig.IPv6Address = parsed[0]
			}
		}
		if mac != "" {
			parsed, err := net.ParseMAC(mac)
			if err != nil {
				return nil, fmt.Errorf("%s is not a valid mac address", mac)
			}
			settings.MacAddress = network.HardwareAddr(parsed)
		}
		if strings.HasPrefix(name, "container:") {
			continue
		}
		config.EndpointsConfig[name] = settings
	}
	return config, nil
}

func (f *createFlags) readPorts() error {
	exposed, bindings, err := nat.ParsePortSpecs(f.publish)
	if err != nil {
		return err
	}
	f.config.ExposedPorts, f.host.PortBindings = network.PortSet{}, network.PortMap{}
	for _, text := range f.expose {
		ports, err := network.ParsePortRange(text)
		if err != nil {
			return fmt.Errorf("invalid range format for --expose: %w", err)
		}
		for port := range ports.All() {
			f.config.ExposedPorts[port] = struct{}{}
		}
	}
	for text := range exposed {
		port, err := network.ParsePort(string(text))
		if err != nil {
			return err
		}
		f.config.ExposedPorts[port] = struct{}{}
		for _, b := range bindings[text] {
			binding := network.PortBinding{HostPort: b.HostPort}
			if b.HostIP != "" {
				parsed, err := addresses("publish", []string{b.HostIP})
				if err != nil {
					return err
				}
				binding.HostIP = parsed[0]
			}
			f.host.PortBindings[port] = append(f.host.PortBindings[port], binding)
		}
	}
	return nil
}

// readSecurity replaces the path of a seccomp profile by its content.
func (f *createFlags) readSecurity() error {
	for _, option := range f.securityOpts {
		key, value, _ := strings.Cut(option, "=")
		switch {
		case option == "systempaths=unconfined":
			f.host.MaskedPaths, f.host.ReadonlyPaths = []string{}, []string{}
			continue
		case key == "seccomp" && value != "unconfined" && value != "builtin":
			body, err := os.ReadFile(value)
			if err != nil {
				return fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
			}
			var compact json.RawMessage
			if err := json.Unmarshal(body, &compact); err != nil {
				return fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", value, err)
			}
			option = "seccomp=" + string(compact)
		}
		f.host.SecurityOpt = append(f.host.SecurityOpt, option)
	}
	return nil
}

func (f *createFlags) readHealth() error {
	if f.noHealthcheck {
		f.config.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
		return nil
	}
	check := container.HealthConfig{Retries: f.healthRetries}
	used := f.healthRetries != 0
	if f.healthCmd != "" {
		check.Test, used = []string{"CMD-SHELL", f.healthCmd}, true
	}
	for _, d := range []struct {
		text string
		to   *time.Duration
	}{{f.healthInterval, &check.Interval}, {f.healthTimeout, &check.Timeout}, {f.healthStart, &check.StartPeriod}, {f.healthStartInterval, &check.StartInterval}} {
		if d.text == "" {
			continue
		}
		value, err := time.ParseDuration(d.text)
		if err != nil {
			return err
		}
		*d.to, used = value, true
	}
	if used {
		f.config.Healthcheck = &check
	}
	return nil
}

func (f *createFlags) readRestart() (err error) {
	f.host.RestartPolicy, err = parseRestart(f.restart)
	return err
}

func parseRestart(text string) (container.RestartPolicy, error) {
	name, count, has := strings.Cut(text, ":")
	policy := container.RestartPolicy{Name: container.RestartPolicyMode(name)}
	if name == "" && has {
		return policy, errors.New("invalid restart policy format: no policy provided before colon")
	}
	if has {
		value, err := strconv.Atoi(count)
		if err != nil {
			return policy, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		policy.MaximumRetryCount = value
	}
	return policy, nil
}

// create makes the container and pulls its image if it is missing.
func (a *app) create(ctx context.Context, api *client.Client, f *createFlags, args []string) (string, error) {
	o, err := f.request(args)
	if err != nil {
		return "", err
	}
	if f.cidfile != "" {
		if _, err := os.Stat(f.cidfile); err == nil {
			return "", fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", f.cidfile)
		}
	}
	if f.pull == "always" {
		if err := a.pullFor(ctx, api, f, o.Platform); err != nil {
			return "", err
		}
	}
	for _, server := range f.host.DNS {
		if server.IsLoopback() {
			fmt.Fprintf(a.err, "WARNING: Localhost DNS (%s) may fail in containers.\n", server)
		}
	}
	created, err := api.ContainerCreate(ctx, o)
	if cerrdefs.IsNotFound(err) && f.pull == "missing" {
		fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", args[0])
		if err := a.pullFor(ctx, api, f, o.Platform); err != nil {
			return "", err
		}
		created, err = api.ContainerCreate(ctx, o)
	}
	if err != nil {
		return "", err
	}
	for _, warning := range created.Warnings {
		fmt.Fprintln(a.err, "WARNING:", warning)
	}
	if f.cidfile != "" {
		if err := os.WriteFile(f.cidfile, []byte(created.ID), 0o644); err != nil {
			return "", fmt.Errorf("failed to write the container ID to the file: %w", err)
		}
	}
	return created.ID, nil
}

func (a *app) pullFor(ctx context.Context, api *client.Client, f *createFlags, platform *ocispec.Platform) error {
	out := a.err
	if f.quiet {
		out = io.Discard
	}
	return a.pull(ctx, api, f.config.Image, false, platform, out, progressAuto)
}
