package cgroup

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// mounted is a hierarchy of cgroup v1: its controllers, or "name=x" for one
// without, and the directory of its root.
type mounted struct {
	controllers []string
	dir         string
}

// mounts lists the hierarchies of v1. Mounts do not change while an engine runs,
// and reading them takes longer than what is done with them.
var mounts = sync.OnceValues(func() ([]mounted, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return parseMountinfo(f)
})

// v1Controllers are those a mount's options may name; other words are options.
var v1Controllers = []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc"}

// parseMountinfo finds cgroup v1 in proc_pid_mountinfo(5). A hierarchy that is
// mounted twice is taken where it is mounted first.
func parseMountinfo(r io.Reader) ([]mounted, error) {
	var list []mounted
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // an overlay of many layers has long options
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			return nil, fmt.Errorf("mountinfo has the line %q", lines.Text())
		}
		if right[0] != "cgroup" {
			continue
		}
		m := mounted{dir: unescape(left[4])}
		for option := range strings.SplitSeq(right[2], ",") {
			if strings.HasPrefix(option, "name=") || slices.Contains(v1Controllers, option) {
				m.controllers = append(m.controllers, option)
			}
		}
		known := func(other mounted) bool { return slices.Equal(other.controllers, m.controllers) }
		if len(m.controllers) > 0 && !slices.ContainsFunc(list, known) {
			list = append(list, m)
		}
	}
	return list, lines.Err()
}

// unescape resolves the octal escapes of mountinfo: space, tab, newline,
// backslash.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}
