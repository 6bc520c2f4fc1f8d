package volume

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// maxName is the longest name of a file in bytes.
const maxName = 255

// NoOptions is ErrInvalidArgument, naming one of the options, for a driver that knows
// none.
func NoOptions(options map[string]string) error {
	for option := range options {
		return fmt.Errorf("volume option %q: %w", option, errdefs.ErrInvalidArgument)
	}
	return nil
}

// CheckName is ErrInvalidArgument for a name that cannot be that of a file in a
// driver's directory: users may give any.
func CheckName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxName || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q cannot be a volume's name: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}
