package private

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SettledLeaks is Leaks after the engine had time (5 s at most on an ordinary machine) to finish what
// it cleans in the background.
func (e *Engine) SettledLeaks(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience(5*time.Second))
	defer cancel()
	for {
		found, err := e.Leaks()
		if err != nil || len(found) == 0 {
			return found, err
		}
		select {
		case <-ctx.Done():
			return found, nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// CleanUp ends an engine: it removes its containers and networks, stops the core and
// removes the rest. What is left of the containers, other than it should be, is an
// error; the engine ends in any case.
func (e *Engine) CleanUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience(time.Minute))
	defer cancel()
	return errors.Join(e.removeAll(ctx), e.Close(ctx), e.RemoveHostState())
}

// removeAll removes the engine's containers and networks, and answers what is left of
// them.
func (e *Engine) removeAll(ctx context.Context) error {
	ids, err := e.Command(ctx, "davit", "ps", "-aq").Output()
	if err != nil {
		return fmt.Errorf("listing containers: %w", err)
	}
	if list := strings.Fields(string(ids)); len(list) > 0 {
		if out, err := e.Command(ctx, "davit", append([]string{"rm", "-fv"}, list...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("removing containers: %w\n%s", err, out)
		}
	}
	// Bridges would outlive the engine.
	if out, err := e.Command(ctx, "davit", "network", "prune", "-f").CombinedOutput(); err != nil {
		return fmt.Errorf("removing networks: %w\n%s", err, out)
	}
	leaks, err := e.SettledLeaks(ctx)
	if err != nil {
		return err
	}
	if len(leaks) > 0 {
		return fmt.Errorf("left behind:\n%s", strings.Join(leaks, "\n"))
	}
	return nil
}

// RemoveHostState removes what an engine keeps on the host by design while its
// networks exist: bridges, the nftables table, the empty cgroup parent, the
// mounted folder of warm network namespaces. Call it after the core has stopped.
func (e *Engine) RemoveHostState() error {
	return errors.Join(e.removeMounts(), e.removeLinks(), e.removeTable(), e.removeCgroups(), e.removeDir())
}

func (e *Engine) removeMounts() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], e.Dir+"/") {
			points = append(points, fields[4])
		}
	}
	// The last mounted goes first.
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", points[i], err)
		}
	}
	return nil
}

func (e *Engine) removeLinks() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.Attrs().Name == e.Bridge {
			return netlink.LinkDel(link)
		}
	}
	return nil
}

func (e *Engine) removeTable() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return err
	}
	for _, table := range tables {
		if table.Name == e.Table {
			conn.DelTable(table)
		}
	}
	return conn.Flush()
}

func (e *Engine) removeCgroups() error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*" + e.Cgroup)
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range append(roots, "/sys/fs/cgroup"+e.Cgroup) {
		errs = append(errs, removeGroup(filepath.Join(root, "monitors")), removeGroup(root))
	}
	return errors.Join(errs...)
}

// removeGroup removes an empty cgroup. The monitor that waited for a container
// ends after its driver, so a group may be busy for a moment.
func removeGroup(dir string) error {
	for deadline := time.Now().Add(Patience(5 * time.Second)); ; time.Sleep(5 * time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

func (e *Engine) removeDir() error {
	if !e.ownDir {
		return nil
	}
	return os.RemoveAll(e.Dir)
}
