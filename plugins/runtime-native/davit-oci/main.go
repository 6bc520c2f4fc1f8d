// Davit-oci is davit's runtime as a command-line OCI runtime: Podman, Docker,
// containerd and BuildKit can use it in the place of runc, with the same flags
// and the same output. Started under another name it is the stage that sets a
// container up from the inside, for where no davit-monitor is installed with it.
package main

import (
	"os"
	"runtime"

	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/command"
	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// The process's first thread stands for the whole process in /proc/self and must
// keep its namespaces and cgroups: with the main goroutine locked to it, none of
// the goroutines that change those can be scheduled there.
func init() { runtime.LockOSThread() }

func main() {
	switch os.Args[0] {
	case launch.InitName, launch.ExecName:
		sandbox.Main()
	}
	os.Exit(command.Main(os.Args))
}
