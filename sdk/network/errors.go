package network

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// ErrPortInUse is the kind of error of Attach and UpdatePorts for a host port
// that another endpoint or process holds. It travels over gRPC by the reason
// PORT_IN_USE and is also an errdefs.ErrAlreadyExists.
var ErrPortInUse = fmt.Errorf("port is already allocated: %w", errdefs.ErrAlreadyExists)
