package rootfs

import "runtime"

// The process's first thread stands for the whole process in /proc/self and must
// keep its namespaces and cgroups: with the main goroutine locked to it, none of
// the goroutines that change those can be scheduled there.
func init() { runtime.LockOSThread() }
