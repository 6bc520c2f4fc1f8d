// Package resctrl puts containers into classes of service of the processor's
// cache and memory bandwidth (Intel RDT and its likes), as linux.intelRdt of the
// runtime-spec asks, through the kernel's resctrl filesystem.
package resctrl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Mountpoint is where the filesystem is mounted by convention.
const Mountpoint = "/sys/fs/resctrl"

// Available says whether a resctrl filesystem is mounted there.
func Available() bool {
	var st unix.Statfs_t
	return unix.Statfs(Mountpoint, &st) == nil && st.Type == unix.RDTGROUP_SUPER_MAGIC
}

// Class is the class of service of one container.
type Class struct {
	// Dir is its directory, Monitoring that of the container's monitoring group,
	// empty without one.
	Dir, Monitoring string
	// Own says that the directory was made for this container alone and ends with it.
	Own bool
}

// New answers the class that a container shall be in, below the filesystem at
// root. Nothing is made yet: who may be killed notes it first.
func New(root, id string, rdt *specs.LinuxIntelRdt) (*Class, error) {
	name := rdt.ClosID
	if name == "" {
		name = id
	}
	if name != "/" && (name == "." || name == ".." || strings.ContainsAny(name, "/\n")) {
		return nil, fmt.Errorf("linux.intelRdt.closID %q is not a name: %w", name, errdefs.ErrInvalidArgument)
	}
	if _, err := schemata(rdt); err != nil {
		return nil, err
	}
	c := &Class{Dir: filepath.Join(root, name), Own: rdt.ClosID == ""}
	if rdt.EnableMonitoring {
		c.Monitoring = filepath.Join(c.Dir, "mon_groups", id)
	}
	return c, nil
}

// Make finds or makes the class and writes its schemata. After an error Remove
// takes back what was made.
func (c *Class) Make(rdt *specs.LinuxIntelRdt) error {
	name := filepath.Base(c.Dir)
	lines, err := schemata(rdt)
	if err != nil {
		return err
	}
	_, err = os.Stat(c.Dir)
	switch {
	case err == nil && len(lines) > 0 && !c.Own:
		// The class is others', too: it must be what is asked for.
		if err := matches(c.Dir, lines); err != nil {
			return err
		}
		lines = nil
	case errors.Is(err, fs.ErrNotExist) && !c.Own && len(lines) == 0:
		return fmt.Errorf("linux.intelRdt.closID %s does not exist: %w", name, errdefs.ErrNotFound)
	case errors.Is(err, fs.ErrNotExist):
		if err := os.Mkdir(c.Dir, 0o755); err != nil {
			return fmt.Errorf("making class of service %s: %w", name, err)
		}
	case err != nil:
		return err
	}
	for _, line := range lines {
		if err := os.WriteFile(filepath.Join(c.Dir, "schemata"), []byte(line+"\n"), 0o644); err != nil {
			return fmt.Errorf("class of service %s: schema %q: %w", name, line, err)
		}
	}
	if c.Monitoring != "" {
		if err := os.Mkdir(c.Monitoring, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making monitoring group %s: %w", filepath.Base(c.Monitoring), err)
		}
	}
	return nil
}

// schemata are the lines to write, in the order of the runtime-spec.
func schemata(rdt *specs.LinuxIntelRdt) ([]string, error) {
	var lines []string
	for _, line := range append([]string{rdt.L3CacheSchema, rdt.MemBwSchema}, rdt.Schemata...) {
		if strings.Contains(line, "\n") && line != rdt.L3CacheSchema {
			return nil, fmt.Errorf("linux.intelRdt: schema %q has more than one line: %w", line, errdefs.ErrInvalidArgument)
		}
		for part := range strings.SplitSeq(line, "\n") {
			if part != "" {
				lines = append(lines, part)
			}
		}
	}
	if s := rdt.MemBwSchema; s != "" && !strings.HasPrefix(s, "MB:") {
		return nil, fmt.Errorf("linux.intelRdt.memBwSchema %q does not begin with MB: %w", s, errdefs.ErrInvalidArgument)
	}
	return lines, nil
}

// matches compares lines with a class that exists, value by value: the kernel
// writes more spaces, zeros and domains than were written.
func matches(dir string, lines []string) error {
	body, err := os.ReadFile(filepath.Join(dir, "schemata"))
	if err != nil {
		return err
	}
	have := map[string]string{}
	for line := range strings.Lines(string(body)) {
		for key, value := range values(line) {
			have[key] = value
		}
	}
	for _, line := range lines {
		for key, value := range values(line) {
			if have[key] != value {
				return fmt.Errorf("class of service %s exists with %s=%s and not with %s: %w", filepath.Base(dir), key, have[key], value, errdefs.ErrFailedPrecondition)
			}
		}
	}
	return nil
}

// values of "L3:0=f;1=0f" by "L3:0", "L3:1".
func values(line string) map[string]string {
	kind, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
	result := map[string]string{}
	for part := range strings.SplitSeq(rest, ";") {
		domain, value, _ := strings.Cut(part, "=")
		value = strings.TrimLeft(strings.ToLower(strings.TrimSpace(value)), "0")
		result[strings.TrimSpace(kind)+":"+strings.TrimSpace(domain)] = value
	}
	return result
}

// Join puts all threads of a process into the class; what they start follows.
func (c *Class) Join(pid int) error {
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return err
	}
	for _, dir := range []string{c.Dir, c.Monitoring} {
		if dir == "" {
			continue
		}
		for _, thread := range threads {
			err := os.WriteFile(filepath.Join(dir, "tasks"), []byte(thread.Name()), 0o644)
			if err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: it has ended
				return fmt.Errorf("joining class of service %s: %w", filepath.Base(c.Dir), err)
			}
		}
	}
	return nil
}

// Remove removes what was made for the container.
func (c *Class) Remove() error {
	var failed error
	for _, dir := range []string{c.Monitoring, c.Dir} {
		if dir == "" || dir == c.Dir && !c.Own {
			continue
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
