// Package userns says which of the host's users stand for those of containers
// that have a user namespace.
package userns

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultUser is the user that the setting "default" means, as for Docker.
const defaultUser = "dockremap"

var (
	rangeOfIDs = regexp.MustCompile(`^([0-9]+)-([0-9]+)$`)
	number     = regexp.MustCompile(`^[0-9]+$`)
)

// Load reads the setting userns_remap: empty for no user namespaces, "default"
// or a user, by name or number, whose ranges are those of /etc/subuid and
// /etc/subgid (subuid(5)), or the range itself as "FIRST-LAST". What cannot be is
// ErrInvalidArgument.
func Load(setting string) (user.IdentityMapping, error) {
	var ids user.IdentityMapping
	if setting == "" {
		return ids, nil
	}
	invalid := func(format string, args ...any) error {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("userns_remap = %q: %s", setting, fmt.Sprintf(format, args...)))
	}
	if parts := rangeOfIDs.FindStringSubmatch(setting); parts != nil {
		first, err := strconv.ParseUint(parts[1], 10, 32)
		if err != nil {
			return ids, invalid("%s is no user ID", parts[1])
		}
		last, err := strconv.ParseUint(parts[2], 10, 32)
		if err != nil || last < first || first == 0 {
			return ids, invalid("is no range of user IDs above 0")
		}
		own := []user.IDMap{{ParentID: int64(first), Count: int64(last - first + 1)}}
		return user.IdentityMapping{UIDMaps: own, GIDMaps: own}, nil
	}
	name := setting
	switch {
	case setting == "default":
		name = defaultUser
	case number.MatchString(setting):
		uid, err := strconv.Atoi(setting)
		if err != nil {
			return ids, invalid("is no user ID")
		}
		found, err := user.LookupUid(uid)
		if err != nil {
			return ids, invalid("%v", err)
		}
		name = found.Name
	}
	ids, err := user.LoadIdentityMapping(name)
	if err != nil {
		return ids, invalid("%v (make the user, and give it ranges with usermod --add-subuids and --add-subgids)", err)
	}
	return ids, nil
}

// Mappings words ranges as the runtime-spec does.
func Mappings(ranges []user.IDMap) []specs.LinuxIDMapping {
	list := make([]specs.LinuxIDMapping, 0, len(ranges))
	for _, r := range ranges {
		list = append(list, specs.LinuxIDMapping{ContainerID: uint32(r.ID), HostID: uint32(r.ParentID), Size: uint32(r.Count)})
	}
	return list
}
