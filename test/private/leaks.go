package private

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/nftables"

	"github.com/davit-engine/davit/sdk/monitor/supervise"
)

// Leaks lists everything of this engine that exists outside its folders, and
// what is left in its folders of containers: mounts, links, nftables tables,
// cgroups, processes, files. Call it after the containers and networks were
// removed; the engine itself may run or not.
func (e *Engine) Leaks() ([]string, error) {
	var found []string
	var errs []error
	for _, look := range []func() ([]string, error){e.mounts, e.links, e.tables, e.cgroups, e.processes, e.files} {
		list, err := look()
		found = append(found, list...)
		errs = append(errs, err)
	}
	return found, errors.Join(errs...)
}

// mounts below the engine's folder.
func (e *Engine) mounts() ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || !strings.HasPrefix(fields[4], e.Dir+"/") {
			continue
		}
		// The pool of warm namespaces and the folder they are in are the engine's,
		// not a container's.
		if rel, ok := strings.CutPrefix(fields[4], filepath.Join(e.Run, "netns")); ok && (rel == "" || strings.Contains(rel, "pool") || strings.HasPrefix(rel, "/.")) {
			continue
		}
		found = append(found, "mount "+fields[4])
	}
	return found, nil
}

// links are the bridge's ports: what containers leave on the host.
func (e *Engine) links() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join("/sys/class/net", e.Bridge, "brif"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []string
	for _, entry := range entries {
		found = append(found, "link "+entry.Name())
	}
	return found, err
}

// tables lists published ports and other elements left in the engine's table.
func (e *Engine) tables() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, table := range tables {
		if table.Name != e.Table {
			continue
		}
		sets, err := conn.GetSets(table)
		if err != nil {
			return nil, err
		}
		for _, set := range sets {
			if !set.IsMap {
				continue // sets hold the networks' own subnets
			}
			elements, err := conn.GetSetElements(set)
			if err != nil {
				return nil, err
			}
			if len(elements) > 0 {
				found = append(found, fmt.Sprintf("nftables map %s %s: %d elements", table.Name, set.Name, len(elements)))
			}
		}
	}
	return found, nil
}

// cgroups below the engine's parent, in every hierarchy.
func (e *Engine) cgroups() ([]string, error) {
	var found []string
	roots, err := filepath.Glob("/sys/fs/cgroup/*" + e.Cgroup)
	if err != nil {
		return nil, err
	}
	for _, root := range append(roots, "/sys/fs/cgroup"+e.Cgroup) {
		entries, err := os.ReadDir(root)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			if entry.IsDir() && entry.Name() != "monitors" {
				found = append(found, "cgroup "+filepath.Join(root, entry.Name()))
			}
		}
	}
	return found, nil
}

// processes are monitors, and anything that runs in the engine's cgroups.
func (e *Engine) processes() ([]string, error) {
	var found []string
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		cgroup, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cgroup"))
		if err != nil {
			continue // gone meanwhile
		}
		if strings.Contains(string(cgroup), e.Cgroup+"/") {
			cmdline, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
			if waits := strings.Contains(string(cmdline), supervise.Untitled); waits {
				continue // a monitor of the running driver; RemoveHostState sees whether it ended
			}
			found = append(found, fmt.Sprintf("process %d %s", pid, strings.ReplaceAll(string(cmdline), "\x00", " ")))
		}
	}
	return found, nil
}

// files of containers below root and run.
func (e *Engine) files() ([]string, error) {
	var found []string
	for _, dir := range []string{filepath.Join(e.Root, "containers"), filepath.Join(e.Run, "drivers", "runtime-native")} {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			if entry.IsDir() && len(entry.Name()) == 64 {
				found = append(found, "file "+filepath.Join(dir, entry.Name()))
			}
		}
	}
	return found, nil
}
