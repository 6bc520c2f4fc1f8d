package engine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/davit-engine/davit/core/container"
	"github.com/davit-engine/davit/core/resolvconf"
)

// writeResolv makes a container's resolv.conf, and keeps a copy of it: only what
// nobody else has changed since is changed later.
func (e *Engine) writeResolv(r container.Record) error {
	body, err := e.Networks.ResolvConf(r.ID, e.resolving(r), dnsOptions(r))
	if err != nil {
		return fmt.Errorf("making resolv.conf: %w", err)
	}
	path := filepath.Join(e.dir(r.ID), "resolv.conf")
	if err := writeInPlace(path+".made", body); err != nil {
		return err
	}
	return writeInPlace(path, body)
}

// changeResolv is writeResolv under a running container.
func (e *Engine) changeResolv(r container.Record) error {
	path := filepath.Join(e.dir(r.ID), "resolv.conf")
	now, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	made, err := os.ReadFile(path + ".made")
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if err == nil && !bytes.Equal(now, made) {
		return nil // the container's, or its user's, own
	}
	return e.writeResolv(r)
}

// resolving says which name servers a container reaches.
func (e *Engine) resolving(r container.Record) resolvconf.Network {
	switch {
	case r.HostConfig.NetworkMode.IsHost():
		return resolvconf.Host
	case usesDNS(r):
		return resolvconf.Own
	}
	for _, endpoint := range r.Endpoints {
		if n, err := e.Networks.Find(endpoint.NetworkID); err == nil && n.IPv6() {
			return resolvconf.Direct6
		}
	}
	return resolvconf.Direct
}
