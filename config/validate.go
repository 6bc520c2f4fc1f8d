package config

import (
	"errors"
	"net/netip"
	"path"
	"path/filepath"
	"strings"
	"unicode"
)

// maxRun is how long the run directory's path may be: unix sockets below it
// have 107 characters at most.
const maxRun = 60

// Validate names everything that is wrong.
func (c Config) Validate() error {
	var problems []error
	wrong := func(format string, args ...any) { problems = append(problems, invalid(format, args...)) }

	for _, dir := range []struct{ key, path string }{{"root", c.Root}, {"run", c.Run}} {
		if !filepath.IsAbs(dir.path) || filepath.Clean(dir.path) == "/" {
			wrong("%s = %q: must be an absolute path of an own directory", dir.key, dir.path)
		}
	}
	if filepath.Clean(c.Root) == filepath.Clean(c.Run) {
		wrong("run = %q: must not be root", c.Run)
	}
	if len(c.Run) > maxRun {
		wrong("run = %q: %d characters are too many for the sockets below it, at most %d", c.Run, len(c.Run), maxRun)
	}
	if len(c.Listen) == 0 {
		wrong("listen: needs at least one address, e.g. \"unix:///run/davit.sock\"")
	}
	for _, address := range c.Listen {
		if err := checkListen(address); err != nil {
			problems = append(problems, err)
		}
	}
	if _, err := parseLevel(c.LogLevel); err != nil {
		wrong("log_level = %q: is none of trace, debug, info, warn, error", c.LogLevel)
	}
	switch parent := c.Parent(); c.CgroupDriver {
	case CgroupFS:
		if !path.IsAbs(parent) || path.Clean(parent) != parent || parent == "/" {
			wrong("cgroup_parent = %q: must be a path such as \"/davit\"", parent)
		}
	case Systemd:
		if !strings.HasSuffix(parent, ".slice") || len(parent) <= len(".slice") || strings.ContainsAny(parent, "/:") {
			wrong("cgroup_parent = %q: cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"", parent)
		}
	default:
		wrong("cgroup_driver = %q: is none of %s, %s", c.CgroupDriver, CgroupFS, Systemd)
	}
	if c.InitPath != "" && !filepath.IsAbs(c.InitPath) {
		wrong("init_path = %q: must be an absolute path", c.InitPath)
	}
	for _, dir := range c.CDISpecDirs {
		if !filepath.IsAbs(dir) {
			wrong("cdi_spec_dirs: %q is not an absolute path", dir)
		}
	}
	for _, d := range []struct{ key, name string }{
		{"storage", c.Defaults.Storage}, {"network", c.Defaults.Network},
		{"runtime", c.Defaults.Runtime}, {"volume", c.Defaults.Volume},
	} {
		if d.name == "" || strings.ContainsAny(d.name, "/ ") {
			wrong("defaults.%s = %q: must be the name of a driver", d.key, d.name)
		}
	}
	for _, dir := range c.Plugins.Dirs {
		if !filepath.IsAbs(dir) {
			wrong("plugins.dirs: %q is not an absolute path", dir)
		}
	}
	if c.Plugins.StartTimeout <= 0 {
		wrong("plugins.start_timeout = %q: must be positive", c.Plugins.StartTimeout)
	}
	if c.Plugins.CallTimeout <= 0 {
		wrong("plugins.call_timeout = %q: must be positive", c.Plugins.CallTimeout)
	}
	if c.Logs.MaxSize < 0 {
		wrong("logs.max_size = %d: must not be negative; 0 turns rotation off", c.Logs.MaxSize)
	}
	if c.Logs.MaxFile < 1 {
		wrong("logs.max_file = %d: must be at least 1", c.Logs.MaxFile)
	}
	if c.Network.NetnsPool < 0 || c.Network.NetnsPool > 256 {
		wrong("network.netns_pool = %d: must be between 0 and 256", c.Network.NetnsPool)
	}
	for _, server := range c.Network.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			wrong("network.dns: %q is not an IP address", server)
		}
	}
	if !filepath.IsAbs(c.Network.ResolvConf) {
		wrong("network.resolv_conf = %q: must be an absolute path", c.Network.ResolvConf)
	}
	for _, list := range []struct {
		key   string
		words []string
	}{{"dns_search", c.Network.DNSSearch}, {"dns_options", c.Network.DNSOptions}} {
		for _, word := range list.words {
			if word == "" || strings.ContainsFunc(word, unicode.IsSpace) {
				wrong("network.%s: %q is not one word", list.key, word)
			}
		}
	}
	problems = append(problems, c.Images.problems()...)
	for name, r := range c.Registries {
		problems = append(problems, r.problems(name)...)
	}
	problems = append(problems, policyProblems(c.Policies)...)
	return errors.Join(problems...)
}

func checkListen(address string) error {
	scheme, rest, ok := strings.Cut(address, "://")
	switch {
	case ok && scheme == "unix" && filepath.IsAbs(rest) && len(rest) <= 107:
		return nil
	case ok && scheme == "fd" && rest == "":
		return nil
	case ok && scheme == "tcp":
		return invalid("listen: %q: davit does not serve TCP, which has no access control without TLS: reach the socket over SSH (DOCKER_HOST=ssh://HOST)", address)
	}
	return invalid("listen: %q is neither unix:///PATH nor fd:// (sockets from systemd)", address)
}
