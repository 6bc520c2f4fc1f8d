package unpack

import (
	"archive/tar"
	"math"
	"strings"
)

// maxID is the highest user and group ID of Linux: (uid_t)-1 means "none".
const maxID = math.MaxUint32 - 1

// xattr begins the PAX records of extended attributes.
const xattr = "SCHILY.xattr."

// rules judge a layer's entries before they have effect.
type rules struct {
	limits   Limits
	detached *detached // nil over the layers below
	entries  int
	size     int64
}

// accept says whether an entry, with its name cleaned, is to be unpacked, and takes
// from it what may not have effect.
func (r *rules) accept(h *tar.Header) (bool, error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return false, nil // it is no file, whatever its name
	}
	if err := r.count(h); err != nil {
		return false, err
	}
	// The kernel takes the lower 32 bits: 4294967296 would be root.
	if h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID {
		return false, invalid("%q has the owner %d:%d, which is beyond 32 bits", h.Name, h.Uid, h.Gid)
	}
	if h.Typeflag == tar.TypeChar && h.Devmajor == 0 && h.Devminor == 0 {
		return false, invalid("%q is a character device 0/0: overlayfs's own form of a deletion", h.Name)
	}
	for key := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattr); ok && !allowed(name) {
			delete(h.PAXRecords, key)
		}
	}
	if r.detached != nil {
		if err := r.detached.accept(h); err != nil {
			return false, err
		}
	}
	return true, nil
}

func (r *rules) count(h *tar.Header) error {
	r.entries++
	if r.limits.Entries > 0 && r.entries > r.limits.Entries {
		return exceeded("it has more than %d entries", r.limits.Entries)
	}
	name := strings.Trim(h.Name, "/")
	if depth := strings.Count(name, "/") + 1; r.limits.Depth > 0 && depth > r.limits.Depth {
		return exceeded("the name %.60q... has %d components, at most %d are unpacked", name, depth, r.limits.Depth)
	}
	most := r.limits.Size
	if most == 0 {
		most = math.MaxInt64
	}
	if h.Size > most-r.size {
		return exceeded("its files have more than %d bytes, with %q of %d", most, h.Name, h.Size)
	}
	r.size += h.Size
	return nil
}

// allowed says whether a layer may set an extended attribute: file capabilities, ACLs
// and users' own. Others are the host's: labels of its security modules, and what
// overlayfs takes for its own (trusted.overlay, and user.overlay where it is mounted
// with userxattr).
func allowed(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}
