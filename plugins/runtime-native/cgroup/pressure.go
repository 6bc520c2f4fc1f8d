package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Pressure is how much tasks waited for one resource (Documentation/accounting/
// psi.rst).
type Pressure struct {
	Some, Full Stall
}

// Stall is the share of time, in percent, in which some or all tasks waited, over
// the last 10, 60 and 300 seconds, and the whole time they did.
type Stall struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

// Pressures are a group's by resource: "cpu", "memory", "io". It is empty on v1
// and on kernels that do not count it.
func (g *Group) Pressures() (map[string]Pressure, error) {
	if g.version() == 1 {
		return nil, nil
	}
	result := map[string]Pressure{}
	for _, resource := range []string{"cpu", "memory", "io"} {
		file := filepath.Join(g.procs(), resource+".pressure")
		body, err := readFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // CONFIG_PSI_DEFAULT_DISABLED
		}
		if err != nil {
			return nil, gone(err)
		}
		p, err := parsePressure(string(body))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		result[resource] = p
	}
	return result, nil
}

func parsePressure(body string) (Pressure, error) {
	var p Pressure
	for line := range strings.Lines(body) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		to := &p.Some
		switch words[0] {
		case "some":
		case "full":
			to = &p.Full
		default:
			return p, fmt.Errorf("line %q is neither of some nor of full", line)
		}
		for _, word := range words[1:] {
			key, text, _ := strings.Cut(word, "=")
			var err error
			switch key {
			case "avg10":
				to.Avg10, err = strconv.ParseFloat(text, 64)
			case "avg60":
				to.Avg60, err = strconv.ParseFloat(text, 64)
			case "avg300":
				to.Avg300, err = strconv.ParseFloat(text, 64)
			case "total":
				var us int64
				us, err = strconv.ParseInt(text, 10, 64)
				to.Total = time.Duration(us) * time.Microsecond
			}
			if err != nil {
				return p, fmt.Errorf("line %q: %w", line, err)
			}
		}
	}
	return p, nil
}
