package runtime

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// Errors of Start that decide a client's exit code. They travel over gRPC by
// the reasons COMMAND_NOT_FOUND and COMMAND_NOT_EXECUTABLE.
var (
	// ErrCommandNotFound: the executable does not exist (exit code 127).
	ErrCommandNotFound = fmt.Errorf("executable file not found: %w", errdefs.ErrInvalidArgument)
	// ErrNotExecutable: it exists and cannot be executed (exit code 126).
	ErrNotExecutable = fmt.Errorf("not executable: %w", errdefs.ErrInvalidArgument)
)
