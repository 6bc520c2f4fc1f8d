// Package mountgrpc converts mounts to and from their wire form.
package mountgrpc

import (
	"github.com/davit-engine/davit/sdk/mount"
	mountv1 "github.com/davit-engine/davit/sdk/proto/davit/mount/v1"
)

// ToProto converts one mount.
func ToProto(m mount.Mount) *mountv1.Mount {
	return &mountv1.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
}

// FromProto converts one mount.
func FromProto(m *mountv1.Mount) mount.Mount {
	return mount.Mount{Type: m.GetType(), Source: m.GetSource(), Target: m.GetTarget(), Options: m.GetOptions()}
}

// AllToProto converts a list of mounts.
func AllToProto(ms []mount.Mount) []*mountv1.Mount {
	out := make([]*mountv1.Mount, len(ms))
	for i, m := range ms {
		out[i] = ToProto(m)
	}
	return out
}

// AllFromProto converts a list of mounts.
func AllFromProto(ms []*mountv1.Mount) []mount.Mount {
	out := make([]mount.Mount, len(ms))
	for i, m := range ms {
		out[i] = FromProto(m)
	}
	return out
}
