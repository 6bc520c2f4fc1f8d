package private

import (
	"os"
	"strconv"
	"time"
)

// Patience is how long a test waits for what takes d on an ordinary machine.
// DAVIT_TEST_PATIENCE multiplies it on slow ones: emulated processors are slower
// by an order of magnitude.
func Patience(d time.Duration) time.Duration {
	factor, err := strconv.Atoi(os.Getenv("DAVIT_TEST_PATIENCE"))
	if err != nil || factor < 1 {
		return d
	}
	return time.Duration(factor) * d
}
