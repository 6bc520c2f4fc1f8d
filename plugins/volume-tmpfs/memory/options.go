package memory

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
)

// noLimit is a size in bytes that no host has. The kernel does not count the blocks of
// a tmpfs without any.
const noLimit int64 = math.MaxInt64 >> 12 << 12

// options are how a tmpfs is mounted.
type options struct {
	size     int64 // bytes; 0: the kernel's default
	mode     uint64
	uid, gid uint64
}

// parse reads a volume's options: size, mode (octal), uid and gid. An error names the
// option.
func parse(given map[string]string) (options, error) {
	o := options{mode: 0o1777}
	for name, text := range given {
		var err error
		switch name {
		case "size":
			if o.size, err = units.RAMInBytes(text); err == nil && o.size <= 0 {
				err = fmt.Errorf("it is not above 0")
			}
		case "mode":
			o.mode, err = strconv.ParseUint(text, 8, 12)
		case "uid":
			o.uid, err = strconv.ParseUint(text, 10, 32)
		case "gid":
			o.gid, err = strconv.ParseUint(text, 10, 32)
		default:
			return o, fmt.Errorf("volume option %q is none of size, mode, uid, gid: %w", name, errdefs.ErrInvalidArgument)
		}
		if err != nil {
			return o, fmt.Errorf("volume option %q: %q: %w: %w", name, text, err, errdefs.ErrInvalidArgument)
		}
	}
	return o, nil
}

// String is the form in which the kernel takes them.
func (o options) String() string {
	list := []string{fmt.Sprintf("mode=%o,uid=%d,gid=%d", o.mode, o.uid, o.gid)}
	if o.size > 0 {
		list = append(list, fmt.Sprintf("size=%d", o.size))
	}
	return strings.Join(list, ",")
}
