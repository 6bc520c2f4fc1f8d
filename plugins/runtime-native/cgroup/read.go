package cgroup

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"
)

// keyed reads a file of lines "key number". A missing file is an empty one.
func keyed(name string) (map[string]uint64, error) {
	body, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseKeyed(string(body)), nil
}

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
