package native

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// withoutHugePages keeps transparent huge pages from this process and from the
// monitors that it starts: where the kernel gives them to everybody, each monitor
// would take four megabytes instead of one. It says whether the process had them
// before, as containers are to have them again.
func withoutHugePages() (had bool, err error) {
	disabled, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	if err != nil {
		return false, fmt.Errorf("asking for the use of huge pages: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("doing without huge pages: %w", err)
	}
	return disabled == 0, nil
}
