package container

import (
	"os/user"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/record"
)

// State is a container as "state" and "list" show it: the state of the
// runtime-spec with runc's additions.
type State struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid"` // 0 when it has ended
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func (r *Runtime) describe(c *record.Record) State {
	status := r.status(c)
	s := State{
		Version: c.OCIVersion, ID: c.ID, PID: c.PID, Status: string(status), Bundle: c.Bundle, Rootfs: c.Rootfs,
		Created: c.Created, Annotations: c.Annotations, Owner: owner(c.UID),
	}
	if status == specs.StateStopped {
		s.PID = 0
	}
	return s
}

func owner(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return "#" + strconv.Itoa(uid)
	}
	return u.Username
}

// State describes one container.
func (r *Runtime) State(id string) (State, error) {
	c, err := r.Root.Peek(id)
	if err != nil {
		return State{}, err
	}
	return r.describe(c), nil
}

// List describes all.
func (r *Runtime) List() ([]State, error) {
	records, err := r.Root.List()
	if err != nil {
		return nil, err
	}
	states := []State{}
	for _, c := range records {
		states = append(states, r.describe(c))
	}
	return states, nil
}
