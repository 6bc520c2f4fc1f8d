package engine

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	mobycontainer "github.com/moby/moby/api/types/container"
	mobynetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"github.com/davit-engine/davit/core/backend"
	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/spec"
	sdknetwork "github.com/davit-engine/davit/sdk/network"
)

// ContainerInspect describes one container.
func (e *Engine) ContainerInspect(ctx context.Context, name string, size bool) (mobycontainer.InspectResponse, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return mobycontainer.InspectResponse{}, err
	}
	r := c.Record()
	command := append(slices.Clone(r.Config.Entrypoint), r.Config.Cmd...)
	dir := e.dir(r.ID)
	response := mobycontainer.InspectResponse{
		ID: r.ID, Created: r.Created.Format(time.RFC3339Nano), Path: command[0], Args: command[1:],
		State: inspectState(r), Image: r.Image, Name: "/" + r.Name, RestartCount: r.RestartCount,
		ResolvConfPath: filepath.Join(dir, "resolv.conf"), HostnamePath: filepath.Join(dir, "hostname"), HostsPath: filepath.Join(dir, "hosts"),
		Driver: r.StorageDriver, Platform: r.Platform, ExecIDs: e.execs.of(r.ID),
		HostConfig: r.HostConfig, Config: r.Config, Mounts: mountPoints(r), AppArmorProfile: spec.AppArmorProfile(r.HostConfig, e.AppArmor),
		GraphDriver:     &storage.DriverData{Name: r.StorageDriver, Data: map[string]string{"Snapshot": r.Snapshot}},
		NetworkSettings: networkSettings(r),
	}
	if r.HostConfig.LogConfig.Type == "json-file" {
		response.LogPath = e.logPath(r.ID)
	}
	if size {
		rw := e.layerSize(ctx, r)
		total := rw
		if img, err := e.Images.Resolve(ctx, r.Image); err == nil {
			total += img.Size
		}
		response.SizeRw, response.SizeRootFs = &rw, &total
	}
	return response, nil
}

func inspectState(r container.Record) *mobycontainer.State {
	return &mobycontainer.State{
		Status: mobycontainer.ContainerState(r.Status), Running: r.Status.Alive(), Paused: r.Status == container.Paused,
		Restarting: r.Status == container.Restarting, OOMKilled: r.OOMKilled, Dead: r.Status == container.Dead,
		Pid: r.PID, ExitCode: r.ExitCode, Error: r.Error,
		StartedAt: r.StartedAt.Format(time.RFC3339Nano), FinishedAt: r.FinishedAt.Format(time.RFC3339Nano),
	}
}

func mountPoints(r container.Record) []mobycontainer.MountPoint {
	points := make([]mobycontainer.MountPoint, 0, len(r.Mounts))
	for _, m := range r.Mounts {
		points = append(points, m.MountPoint)
	}
	return points
}

func networkSettings(r container.Record) *mobycontainer.NetworkSettings {
	settings := &mobycontainer.NetworkSettings{Ports: portMap(r), Networks: map[string]*mobynetwork.EndpointSettings{}}
	for name, endpoint := range r.Endpoints {
		settings.Networks[name] = endpointSettings(name, r)
		if endpoint.Attached != nil {
			settings.SandboxID, settings.SandboxKey = r.ID, endpoint.Attached.Netns
		}
	}
	return settings
}

// portMap shows exposed ports without and published ports with their bindings.
func portMap(r container.Record) mobynetwork.PortMap {
	ports := mobynetwork.PortMap{}
	if !r.Status.Alive() {
		return ports
	}
	for port := range r.Config.ExposedPorts {
		ports[port] = nil
	}
	for _, endpoint := range r.Endpoints {
		if endpoint.Attached == nil {
			continue
		}
		for _, p := range endpoint.Attached.Ports {
			port, ok := mobynetwork.PortFrom(p.ContainerPort, mobynetwork.IPProtocol(p.Proto))
			if ok {
				ports[port] = append(ports[port], mobynetwork.PortBinding{HostIP: hostIP(p), HostPort: hostPort(p)})
			}
		}
	}
	return ports
}

// hostPort is empty for a port that is routed to, not published.
func hostPort(p sdknetwork.Port) string {
	if p.HostPort == 0 {
		return ""
	}
	return strconv.Itoa(int(p.HostPort))
}

func hostIP(p sdknetwork.Port) netip.Addr {
	if p.HostIP.IsValid() {
		return p.HostIP
	}
	return netip.IPv4Unspecified()
}

// ContainerList describes containers, the youngest first.
func (e *Engine) ContainerList(ctx context.Context, o backend.ContainerListOptions) ([]mobycontainer.Summary, error) {
	if err := e.ready(ctx); err != nil {
		return nil, err
	}
	f := o.Filters
	if err := f.Validate("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network", "publish", "since", "status", "volume"); err != nil {
		return nil, err
	}
	selects, err := e.selector(ctx, f)
	if err != nil {
		return nil, err
	}
	all := o.All || o.Limit > 0 || f.Has("status") || f.Has("exited")
	list := []mobycontainer.Summary{}
	for _, c := range e.containers.All() {
		r := c.Record()
		if !all && !r.Status.Alive() && r.Status != container.Restarting || !selects(r) {
			continue
		}
		summary := e.summary(ctx, r)
		if o.Size {
			summary.SizeRw = e.layerSize(ctx, r)
			summary.SizeRootFs = summary.SizeRw
			if img, err := e.Images.Resolve(ctx, r.Image); err == nil {
				summary.SizeRootFs += img.Size
			}
		}
		list = append(list, summary)
		if o.Limit > 0 && len(list) == o.Limit {
			break
		}
	}
	return list, nil
}

// selector turns filters into a predicate.
func (e *Engine) selector(ctx context.Context, f filter.Args) (func(container.Record) bool, error) {
	reference := func(field string) (time.Time, error) {
		if !f.Has(field) {
			return time.Time{}, nil
		}
		c, err := e.containers.Find(f[field][0])
		if err != nil {
			return time.Time{}, err
		}
		return c.Record().Created, nil
	}
	before, err := reference("before")
	if err != nil {
		return nil, err
	}
	since, err := reference("since")
	if err != nil {
		return nil, err
	}
	codes := map[int]bool{}
	for _, value := range f["exited"] {
		code, err := strconv.Atoi(value)
		if err != nil {
			return nil, fmt.Errorf("invalid filter 'exited=%s': %w", value, errInvalid)
		}
		codes[code] = true
	}
	for _, value := range f["status"] {
		if !slices.Contains([]string{"created", "restarting", "running", "removing", "paused", "exited", "dead"}, value) {
			return nil, fmt.Errorf("invalid filter 'status=%s': %w", value, errInvalid)
		}
	}
	ancestors := map[string]bool{}
	for _, name := range f["ancestor"] {
		if img, err := e.Images.Resolve(ctx, name); err == nil {
			ancestors[img.ID.String()] = true
		}
	}
	return func(r container.Record) bool {
		return f.Prefix("id", r.ID) &&
			(f.Match("name", r.Name) || f.Match("name", "/"+r.Name)) &&
			f.Exact("status", string(r.Status)) &&
			f.Labels("label", r.Config.Labels) &&
			(len(codes) == 0 || codes[r.ExitCode] && !r.Status.Alive() && r.Status != container.Created) &&
			(!f.Has("ancestor") || ancestors[r.Image]) &&
			(before.IsZero() || r.Created.Before(before)) &&
			(since.IsZero() || r.Created.After(since)) &&
			(!f.Has("health") || f.Exact("health", "none")) &&
			(!f.Has("is-task") || f.Exact("is-task", "false")) &&
			selectsMount(f, r) && selectsNetwork(f, r) && selectsPort(f, r)
	}, nil
}

func selectsMount(f filter.Args, r container.Record) bool {
	return !f.Has("volume") || slices.ContainsFunc(r.Mounts, func(m container.Mount) bool {
		return f.Exact("volume", m.Name) || f.Exact("volume", m.Destination) || f.Exact("volume", m.Source)
	})
}

func selectsNetwork(f filter.Args, r container.Record) bool {
	if !f.Has("network") {
		return true
	}
	for name, endpoint := range r.Endpoints {
		if f.Exact("network", name) || f.Prefix("network", endpoint.NetworkID) {
			return true
		}
	}
	return false
}

func selectsPort(f filter.Args, r container.Record) bool {
	matches := func(field string, port mobynetwork.Port) bool {
		return f.Exact(field, port.String()) || f.Exact(field, strconv.Itoa(int(port.Num())))
	}
	if f.Has("expose") && !slices.ContainsFunc(slices.Collect(maps.Keys(r.Config.ExposedPorts)), func(p mobynetwork.Port) bool { return matches("expose", p) }) {
		return false
	}
	return !f.Has("publish") || slices.ContainsFunc(slices.Collect(maps.Keys(r.HostConfig.PortBindings)), func(p mobynetwork.Port) bool { return matches("publish", p) })
}

func (e *Engine) summary(ctx context.Context, r container.Record) mobycontainer.Summary {
	command := append(slices.Clone(r.Config.Entrypoint), r.Config.Cmd...)
	summary := mobycontainer.Summary{
		ID: r.ID, Names: []string{"/" + r.Name}, Image: r.Config.Image, ImageID: r.Image, Command: quoted(command),
		Created: r.Created.Unix(), Labels: r.Config.Labels, State: mobycontainer.ContainerState(r.Status), Status: statusText(r, time.Now()),
		Mounts: mountPoints(r), Ports: []mobycontainer.PortSummary{},
		NetworkSettings: &mobycontainer.NetworkSettingsSummary{Networks: map[string]*mobynetwork.EndpointSettings{}},
	}
	summary.HostConfig.NetworkMode = string(r.HostConfig.NetworkMode)
	summary.HostConfig.Annotations = r.HostConfig.Annotations
	if summary.Labels == nil {
		summary.Labels = map[string]string{}
	}
	// A name that was taken away from the image is shown as the image's ID.
	if img, err := e.Images.Resolve(ctx, r.Config.Image); err != nil || img.ID.String() != r.Image {
		summary.Image = r.Image
	}
	for name := range r.Endpoints {
		summary.NetworkSettings.Networks[name] = endpointSettings(name, r)
	}
	for port, bindings := range portMap(r) {
		if len(bindings) == 0 {
			summary.Ports = append(summary.Ports, mobycontainer.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())})
		}
		for _, binding := range bindings {
			public, _ := strconv.Atoi(binding.HostPort)
			summary.Ports = append(summary.Ports, mobycontainer.PortSummary{IP: binding.HostIP, PrivatePort: port.Num(), PublicPort: uint16(public), Type: string(port.Proto())})
		}
	}
	slices.SortFunc(summary.Ports, func(a, b mobycontainer.PortSummary) int { return int(a.PrivatePort) - int(b.PrivatePort) })
	return summary
}

// quoted joins a command as Docker shows it: arguments with blanks in quotes.
func quoted(command []string) string {
	var parts []string
	for _, word := range command {
		if strings.Contains(word, " ") {
			word = "'" + word + "'"
		}
		parts = append(parts, word)
	}
	return strings.Join(parts, " ")
}

// statusText is the STATUS column.
func statusText(r container.Record, now time.Time) string {
	ago := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch r.Status {
	case container.Running:
		return "Up " + ago(r.StartedAt)
	case container.Paused:
		return "Up " + ago(r.StartedAt) + " (Paused)"
	case container.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", r.ExitCode, ago(r.FinishedAt))
	case container.Removing:
		return "Removal In Progress"
	case container.Dead:
		return "Dead"
	case container.Created:
		return "Created"
	case container.Exited:
		if r.FinishedAt.IsZero() {
			return "Created"
		}
		return fmt.Sprintf("Exited (%d) %s ago", r.ExitCode, ago(r.FinishedAt))
	}
	return string(r.Status)
}
