package engine

import (
	"fmt"
	"path/filepath"
	"strings"

	mobymount "github.com/moby/moby/api/types/mount"
	"github.com/moby/sys/mountinfo"
)

// checkPropagation refuses a bind whose mounts are to travel where the host's
// own mount below it lets none travel.
func checkPropagation(source string, wanted mobymount.Propagation) error {
	kind := ""
	switch wanted {
	case mobymount.PropagationShared, mobymount.PropagationRShared:
		kind = "shared"
	case mobymount.PropagationSlave, mobymount.PropagationRSlave:
		kind = "shared or slave"
	default:
		return nil
	}
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return err
	}
	above, err := mountinfo.GetMounts(mountinfo.ParentsFilter(real))
	if err != nil || len(above) == 0 {
		return err
	}
	nearest := above[0]
	for _, m := range above {
		if len(m.Mountpoint) >= len(nearest.Mountpoint) {
			nearest = m
		}
	}
	for peer := range strings.FieldsSeq(nearest.Optional) {
		if strings.HasPrefix(peer, "shared:") || strings.HasPrefix(peer, "master:") && kind != "shared" {
			return nil
		}
	}
	return errInvalid.WithMessage(fmt.Sprintf("path %s is mounted on %s but it is not a %s mount", source, nearest.Mountpoint, kind))
}
