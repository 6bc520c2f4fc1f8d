package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// keyed reads a file of lines "key number". A missing file is an empty one.
func keyed(name string) (map[string]uint64, error) {
	body, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	values := map[string]uint64{}
	for line := range strings.Lines(string(body)) {
		key, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if value, err := strconv.ParseUint(text, 10, 64); err == nil {
			values[key] = value
		}
	}
	return values, nil
}

// hostLimit is the host's memory where a group has no limit of its own.
func hostLimit(limit uint64) uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return limit
	}
	return min(limit, uint64(info.Totalram)*uint64(info.Unit)) //nolint:unconvert // 32 bits wide on some architectures
}
