package registry_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// private gives this host a private address until the test's end: one that is not of
// the loopback's range, and that no other process has.
func private(t *testing.T) string {
	t.Helper()
	address := fmt.Sprintf("10.254.%d.%d", os.Getpid()>>8&0xff, os.Getpid()&0xff)
	if out, err := exec.Command("ip", "address", "add", address+"/32", "dev", "lo").CombinedOutput(); err != nil {
		t.Skipf("an address of one's own needs root and iproute2: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "address", "del", address+"/32", "dev", "lo").Run() })
	return address
}
