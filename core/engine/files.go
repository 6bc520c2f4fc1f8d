package engine

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/core/container"
)

// writeFiles makes hostname, hosts and resolv.conf and answers their mounts. A
// container that shares another's network shares its files, too.
func (e *Engine) writeFiles(r container.Record) ([]specs.Mount, error) {
	dir := e.dir(r.ID)
	owner := dir
	if mode := r.HostConfig.NetworkMode; mode.IsContainer() {
		owner = e.dir(mode.ConnectedContainer())
	} else if err := e.writeOwnFiles(r); err != nil {
		return nil, err
	}
	var mounts []specs.Mount
	for _, name := range []string{"resolv.conf", "hostname", "hosts"} {
		target := "/etc/" + name
		if slices.ContainsFunc(r.Mounts, func(m container.Mount) bool { return m.Destination == target }) {
			continue // the user brings one
		}
		options := []string{"rbind", "rprivate"}
		if r.HostConfig.ReadonlyRootfs {
			options = append(options, "ro")
		}
		if e.remapped(r) {
			options = append(options, "idmap")
		}
		mounts = append(mounts, specs.Mount{Destination: target, Type: "bind", Source: filepath.Join(owner, name), Options: options})
	}
	return mounts, nil
}

func (e *Engine) writeOwnFiles(r container.Record) error {
	dir := e.dir(r.ID)
	hostname := r.Config.Hostname
	if hostname == "" { // the host's UTS namespace
		hostname, _ = os.Hostname()
	}
	if err := writeInPlace(filepath.Join(dir, "hostname"), []byte(hostname+"\n")); err != nil {
		return err
	}
	if err := e.writeResolv(r); err != nil {
		return err
	}
	return e.writeHosts(r)
}

// writeHosts writes the hosts file with the addresses known now.
func (e *Engine) writeHosts(r container.Record) error {
	if r.HostConfig.NetworkMode.IsContainer() {
		return nil
	}
	path := filepath.Join(e.dir(r.ID), "hosts")
	var b bytes.Buffer
	if r.HostConfig.NetworkMode.IsHost() {
		own, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		b.Write(own)
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	}
	names := slices.Sorted(maps.Keys(r.Endpoints))
	for _, extra := range r.HostConfig.ExtraHosts {
		host, address, ok := strings.Cut(extra, ":")
		if !ok {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("bad format for add-host: %q", extra))
		}
		if address == "host-gateway" {
			for _, gateway := range e.hostGateways(r) {
				fmt.Fprintf(&b, "%s\t%s\n", gateway, host)
			}
			continue
		}
		fmt.Fprintf(&b, "%s\t%s\n", strings.Trim(address, "[]"), host)
	}
	for _, name := range names {
		a := r.Endpoints[name].Attached
		if a == nil {
			continue
		}
		hostname := r.Config.Hostname
		if r.Config.Domainname != "" {
			hostname = hostname + "." + r.Config.Domainname + " " + hostname
		}
		for _, prefix := range []netip.Prefix{a.IPv4, a.IPv6} {
			if prefix.IsValid() {
				fmt.Fprintf(&b, "%s\t%s\n", prefix.Addr(), hostname)
			}
		}
	}
	return writeInPlace(path, b.Bytes())
}

// hostGateways are the addresses of the host that a container reaches it by; none
// before its networks are attached.
func (e *Engine) hostGateways(r container.Record) []netip.Addr {
	var list []netip.Addr
	g := e.gatewaysOf(r)
	if a := r.Endpoints[g.ip4].Attached; a != nil && a.Gateway4.IsValid() {
		list = append(list, a.Gateway4)
	}
	if a := r.Endpoints[g.ip6].Attached; a != nil && a.Gateway6.IsValid() {
		list = append(list, a.Gateway6)
	}
	return list
}

// writeInPlace rewrites a file without replacing it: containers have the file
// itself mounted.
func writeInPlace(path string, content []byte) error {
	return os.WriteFile(path, content, 0o644)
}
