// Package volume is the engine's volumes: which driver each is bound to, and
// what it is called. The data is the drivers'; who uses a volume is derived from
// the containers.
package volume

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	mobyvolume "github.com/moby/moby/api/types/volume"
	"go.etcd.io/bbolt"

	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/state"
	"github.com/davit-engine/davit/sdk/volume"
)

// Record is what the engine keeps of a volume.
type Record struct {
	Name       string
	Driver     string
	Mountpoint string
	Options    map[string]string
	Labels     map[string]string
	Created    time.Time
	Anonymous  bool
	// Pending says that the driver was asked to make it and has not answered.
	Pending bool `json:",omitempty"`
	// RenamedFrom is the name that containers may still know it by, while it is being
	// renamed.
	RenamedFrom string `json:",omitempty"`
	// Owner is the container that an anonymous volume was made for, as long as the
	// volume goes with it.
	Owner string
}

// Options are what a service is made of.
type Options struct {
	DB *bbolt.DB
	// Driver finds a volume driver; the empty name is the default.
	Driver        func(name string) (volume.Driver, error)
	DefaultDriver string
	NewName       func() string // of volumes that are given none
	Emit          func(events.Message)
}

// Service is the engine's volumes.
type Service struct {
	Options
	records *state.Collection[Record]

	turns turns // of names that are being made, removed or renamed
	fills turns // of volumes that are being filled

	mu  sync.RWMutex
	all map[string]Record
	// claims are the uses that containers have, or are just getting.
	claims map[volume.Claim]bool
	// reserved are the volumes of containers that are being made.
	reserved map[volume.Claim]bool
}

// New opens the records.
func New(o Options) (*Service, error) {
	records, err := state.NewCollection[Record](o.DB, "volumes")
	if err != nil {
		return nil, err
	}
	all, err := records.All()
	if err != nil {
		return nil, err
	}
	return &Service{Options: o, records: records, all: all, claims: map[volume.Claim]bool{}, reserved: map[volume.Claim]bool{}}, nil
}

func (s *Service) get(name string) (Record, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.all[name]
	return r, ok
}

func noSuch(name string) error {
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("get %s: no such volume", name))
}

func show(r Record) mobyvolume.Volume {
	v := mobyvolume.Volume{Name: r.Name, Driver: r.Driver, Mountpoint: r.Mountpoint, Options: r.Options, Labels: r.Labels, Scope: "local", CreatedAt: r.Created.Format(time.RFC3339)}
	if r.Anonymous {
		v.Labels = maps.Clone(r.Labels)
		if v.Labels == nil {
			v.Labels = map[string]string{}
		}
		v.Labels["com.docker.volume.anonymous"] = ""
	}
	return v
}

// Inspect implements the engine's Volumes.
func (s *Service) Inspect(_ context.Context, name string) (mobyvolume.Volume, error) {
	r, ok := s.get(name)
	if !ok {
		return mobyvolume.Volume{}, noSuch(name)
	}
	return show(r), nil
}

// List implements the engine's Volumes.
func (s *Service) List(_ context.Context, f filter.Args, users func(string) int) (mobyvolume.ListResponse, error) {
	response := mobyvolume.ListResponse{Volumes: []mobyvolume.Volume{}, Warnings: []string{}}
	if err := f.Validate("dangling", "driver", "label", "name"); err != nil {
		return response, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return response, err
	}
	s.mu.RLock()
	records := slices.Collect(maps.Values(s.all))
	s.mu.RUnlock()
	for _, r := range records {
		if !f.Exact("driver", r.Driver) || !f.Match("name", r.Name) || !f.Labels("label", show(r).Labels) || f.Has("dangling") && dangling != (users(r.Name) == 0) {
			continue
		}
		response.Volumes = append(response.Volumes, show(r))
	}
	slices.SortFunc(response.Volumes, func(a, b mobyvolume.Volume) int { return strings.Compare(a.Name, b.Name) })
	return response, nil
}

func (s *Service) emit(r Record, action events.Action, extra map[string]string) {
	attributes := map[string]string{"driver": r.Driver}
	maps.Copy(attributes, extra)
	s.Emit(events.Message{Type: events.VolumeEventType, Action: action, Actor: events.Actor{ID: r.Name, Attributes: attributes}})
}
