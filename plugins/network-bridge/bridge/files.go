package bridge

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/davit-engine/davit/sdk/network"
)

// record is a network on disk.
type record struct {
	network.Network
	Bridge string
}

// endpointRecord is an endpoint on disk.
type endpointRecord struct {
	network.Endpoint
	// Attaching says that Attach has not succeeded yet: after a crash nobody knows how
	// far it came.
	Attaching bool `json:",omitempty"`
}

// files keeps one file for each network and each endpoint, written by rename. An
// endpoint is as short-lived as its container: its file is not synced.
type files struct{ root string }

func (f files) dir(kind string) string { return filepath.Join(f.root, kind) }

func (f files) load() (networks []record, endpoints []endpointRecord, err error) {
	for _, kind := range []string{"networks", "endpoints"} {
		if err := os.MkdirAll(f.dir(kind), 0o700); err != nil {
			return nil, nil, err
		}
	}
	if networks, err = loadAll[record](f.dir("networks")); err != nil {
		return nil, nil, err
	}
	endpoints, err = loadAll[endpointRecord](f.dir("endpoints"))
	return networks, endpoints, err
}

func loadAll[T any](dir string) ([]T, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []T
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if !strings.HasSuffix(path, ".json") { // a write that was cut off
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var one T
		if err := json.Unmarshal(body, &one); err != nil {
			return nil, fmt.Errorf("record %s: %w", path, err)
		}
		all = append(all, one)
	}
	return all, nil
}

func (f files) save(kind, id string, v any, sync bool) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	path := filepath.Join(f.dir(kind), id+".json")
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(body)
	if sync && err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (f files) remove(kind, id string) error {
	err := os.Remove(filepath.Join(f.dir(kind), id+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// uniqueLocal is the /48 that this driver takes IPv6 subnets from when none is
// configured: chosen at random once, and kept (RFC 4193, 3.2).
func (f files) uniqueLocal() (netip.Prefix, error) {
	path := filepath.Join(f.root, "unique-local")
	body, err := os.ReadFile(path)
	if err == nil {
		if p, err := netip.ParsePrefix(string(body)); err == nil {
			return p, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return netip.Prefix{}, err
	}
	b := [16]byte{0xfd}
	_, _ = rand.Read(b[1:6]) // never fails
	p := netip.PrefixFrom(netip.AddrFrom16(b), 48)
	if err := os.WriteFile(path+".new", []byte(p.String()), 0o600); err != nil {
		return p, err
	}
	return p, os.Rename(path+".new", path)
}

func (f files) saveNetwork(r record) error    { return f.save("networks", r.ID, r, true) }
func (f files) removeNetwork(id string) error { return f.remove("networks", id) }
func (f files) saveEndpoint(e network.Endpoint, attaching bool) error {
	return f.save("endpoints", e.EndpointID, endpointRecord{e, attaching}, false)
}
func (f files) removeEndpoint(id string) error { return f.remove("endpoints", id) }
