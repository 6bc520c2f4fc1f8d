package checkpoint

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// device is a filesystem, whatever is mounted of it.
type device struct{ major, minor int }

// mounts finds out what of a process's mounts is the host's: whatever lies on a
// filesystem that is mounted on the host, too. All others are the container's own
// (tmpfs, proc, devpts, …) and are in the images. The root is neither: it is
// given to CRIU as a directory.
func (i *Image) mounts(pid int) error {
	host, err := mountinfo.GetMounts(nil)
	if err != nil {
		return fmt.Errorf("reading the host's mounts: %w", err)
	}
	places := map[device][]*mountinfo.Info{}
	for _, m := range host {
		d := device{m.Major, m.Minor}
		places[d] = append(places[d], m)
	}
	file, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "mountinfo"))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	own, err := mountinfo.GetMountsFromReader(file, nil)
	if err != nil {
		return fmt.Errorf("reading the container's mounts: %w", err)
	}
	for _, m := range own {
		if m.Mountpoint == "/" {
			continue
		}
		point := Point{Path: m.Mountpoint}
		info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "root", m.Mountpoint))
		point.File = err == nil && !info.IsDir()
		i.Points = append(i.Points, point)
		if found, ok := places[device{m.Major, m.Minor}]; ok {
			i.External = append(i.External, External{Mountpoint: m.Mountpoint, Source: hostPath(found, m.Root)})
		}
	}
	return nil
}

// hostPath is where the host sees what a mount shows; empty if it does not.
func hostPath(places []*mountinfo.Info, root string) string {
	for _, place := range places {
		if rest, ok := below(place.Root, root); ok {
			return path.Join(place.Mountpoint, rest)
		}
	}
	return ""
}

// below answers what of a clean path follows a directory.
func below(dir, name string) (rest string, ok bool) {
	if dir == "/" || name == dir {
		return strings.TrimPrefix(name, dir), true
	}
	return strings.CutPrefix(name, dir+"/")
}
