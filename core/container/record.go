// Package container is the engine's containers: their records, the state
// machine of their life, and the store that finds them by name or ID.
package container

import (
	"maps"
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	sdknetwork "github.com/davit-engine/davit/sdk/network"
)

// Record is all the engine keeps of a container. Config, HostConfig and the
// values of Endpoints are replaced, never changed in place, so a copy of a
// Record may be read without a lock.
type Record struct {
	ID         string
	Name       string // without the slash that the API shows
	Created    time.Time
	Image      string                // the image's ID
	Config     *container.Config     // merged with the image's
	HostConfig *container.HostConfig // defaults filled in
	Platform   string

	// A container is bound to drivers by name, never to a process.
	StorageDriver string
	RuntimeDriver string
	Snapshot      string // key of the writable layer
	Written       bool   // somebody copied into the layer before the first start

	Mounts    []Mount
	Endpoints map[string]Endpoint // by network name

	Status       Status
	PID          int
	Socket       string // of the monitor
	ExitCode     int
	Error        string
	OOMKilled    bool
	StartedAt    time.Time
	FinishedAt   time.Time
	RestartCount int
	// Committing says that the engine has paused it for as long as a commit reads its
	// files. A crash must not leave it so.
	Committing bool
	// Stopped says that a user wanted it to end: no restart policy starts it again
	// (until the engine restarts, for "always").
	Stopped bool
}

// Mount is one mount of a container besides its root filesystem.
type Mount struct {
	container.MountPoint
	// Options are further fstab options ("nosuid", "noexec", tmpfs sizes).
	Options []string
	// BindRecursive is false for --mount bind-recursive=disabled.
	NonRecursive bool
	// WritableBelow leaves mounts below a read-only bind as they are
	// (bind-recursive=writable).
	WritableBelow bool
	// NoCopy keeps an empty volume from being filled with the image's content.
	NoCopy bool
	// Subpath is a directory within the volume.
	Subpath string
	// Anonymous volumes go with the container.
	Anonymous bool
}

// Endpoint is a container's place on one network.
type Endpoint struct {
	NetworkID  string
	EndpointID string
	Request    *network.EndpointSettings // as the user asked
	Attached   *sdknetwork.Endpoint      // as the driver made it; nil while not running
}

// clone copies what a change would write to.
func (r Record) clone() Record {
	r.Mounts = slices.Clone(r.Mounts)
	r.Endpoints = maps.Clone(r.Endpoints)
	return r
}

// Detach forgets how the container was attached to its networks: it has ended.
func (r *Record) Detach() {
	for name, endpoint := range r.Endpoints {
		endpoint.Attached = nil
		r.Endpoints[name] = endpoint
	}
}
