// Davit-monitor is the parent of one container: it holds its streams, writes its
// log and keeps its exit status. Started under another name it is the stage that
// sets a container up from the inside. It is started by runtime drivers, never by
// hand.
package main

import (
	"fmt"
	"os"

	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
	"github.com/davit-engine/davit/sdk/monitor/supervise"
)

func main() {
	switch os.Args[0] {
	case launch.InitName, launch.ExecName:
		sandbox.Main()
	case "davit-monitor":
		if len(os.Args) == 2 { // the container's ID, for people who read ps
			os.Exit(supervise.Main())
		}
	}
	fmt.Fprintln(os.Stderr, "davit-monitor is started by davit's runtime drivers: there is nothing to run by hand")
	os.Exit(2)
}
