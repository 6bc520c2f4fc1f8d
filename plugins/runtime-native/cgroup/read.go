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
	values := map[string]uint64{}
	for line := range strings.Lines(string(body)) {
		key, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if value, err := strconv.ParseUint(text, 10, 64); err == nil {
			values[key] = value
		}
	}
	return values, nil
}
