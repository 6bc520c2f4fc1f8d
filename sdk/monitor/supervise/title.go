package supervise

import (
	"os"
	"unsafe"
)

// Untitled is the argument of a monitor that does not know its container yet. It
// is as long as an engine's container IDs, which take its place.
const Untitled = "----------------------------------------------------------------"

// title shows id as the process's argument, as far as there is room: the kernel
// reads a command line from the process's own memory, and os.Args points there.
func title(id string) {
	if len(os.Args) != 2 || os.Args[1] != Untitled {
		return
	}
	argument := unsafe.Slice(unsafe.StringData(os.Args[1]), len(Untitled))
	clear(argument[copy(argument, id):])
}
