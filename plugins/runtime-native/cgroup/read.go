package cgroup

import (
	"strconv"
	"strings"
)

// parseKeyed reads lines "key number"; others are left out.
func parseKeyed(body string) map[string]uint64 {
	values := map[string]uint64{}
	for line := range strings.Lines(body) {
		key, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if value, err := strconv.ParseUint(text, 10, 64); err == nil {
			values[key] = value
		}
	}
	return values
}
