// Package mount holds the one type in which drivers describe mounts.
//
// In davit mounts are data: a storage or volume driver says what must be
// mounted and the runtime mounts it inside the container's own mount
// namespace. Nothing has to be mounted on the host for a running container.
package mount

// Mount describes one mount the way mount(2) and fstab(5) do.
type Mount struct {
	// Type is the filesystem type ("overlay", "bind", "tmpfs", ...).
	Type string `json:"type"`
	// Source is the device, directory or pseudo source of the mount.
	Source string `json:"source"`
	// Target is the path below the mount's base at which it is mounted; empty
	// means the base itself.
	Target string `json:"target,omitempty"`
	// Options are fstab-style options, flags ("ro", "rbind", "nosuid") and
	// filesystem data ("lowerdir=...") mixed in any order.
	Options []string `json:"options,omitempty"`
}
