package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountMapped mounts an overlay whose layers' owners are mapped: overlays cannot
// be mapped themselves. Files keep the owners they have, in upper layers too, so
// that layers can be shared, committed and copied as ever. The calling thread's
// mount namespace is one that nobody else sees.
func mountMapped(m Mount, dir string) error {
	fs, err := newFilesystem(Mount{Type: "tmpfs", Source: "layers", Data: []string{"mode=755"}})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fs) }()
	if err := unix.MoveMount(fs, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	if err := unix.Fchdir(fs); err != nil {
		return err
	}
	defer func() { _ = unix.Chdir("/") }()
	options, err := mapLayers(m)
	if err != nil {
		return err
	}
	// What the overlay writes on its own account belongs to the container's root, too:
	// to nobody else could a mapped layer give it.
	var owner uint32
	for _, ids := range m.IDMap.UIDs {
		if ids.Inside == 0 {
			owner = ids.Outside
		}
	}
	return writingAs(int(owner), func() error {
		return unix.Mount("overlay", dir, "overlay", legacyFlags(m.Set), strings.Join(options, ","))
	})
}

// mapLayers mounts mapped clones of an overlay's layers below the working
// directory and answers the overlay's options for them.
func mapLayers(m Mount) ([]string, error) {
	mounted := map[string]string{} // directories by those they are clones of
	clone := func(source string) (string, error) {
		if name, ok := mounted[source]; ok {
			return name, nil
		}
		name := strconv.Itoa(len(mounted))
		if err := os.Mkdir(name, 0o755); err != nil {
			return "", err
		}
		fd, err := cloneTree(Mount{Source: source})
		if err != nil {
			return "", err
		}
		defer func() { _ = unix.Close(fd) }()
		if err := applyMap(fd, m.IDMap); err != nil {
			return "", fmt.Errorf("layer %s: %w", source, err)
		}
		mounted[source] = name
		return name, unix.MoveMount(fd, "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	var options []string
	for _, option := range m.Data {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "lowerdir":
			var layers []string
			for layer := range strings.SplitSeq(value, ":") {
				name, err := clone(layer)
				if err != nil {
					return nil, err
				}
				layers = append(layers, name)
			}
			option = "lowerdir=" + strings.Join(layers, ":")
		case "upperdir", "workdir":
			// Both have to be on the same mount.
			name, err := clone(filepath.Dir(value))
			if err != nil {
				return nil, err
			}
			option = key + "=" + filepath.Join(name, filepath.Base(value))
		}
		options = append(options, option)
	}
	return options, nil
}

// writingAs calls fn while the calling thread makes files as another user, with
// all its capabilities.
func writingAs(id int, fn func() error) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var own [2]unix.CapUserData
	if err := unix.Capget(&header, &own[0]); err != nil {
		return err
	}
	become := func(id int) error {
		// These cannot fail but by not doing it.
		_, _ = unix.SetfsgidRetGid(id)
		_, _ = unix.SetfsuidRetUid(id)
		if now, _ := unix.SetfsuidRetUid(-1); now != id {
			return fmt.Errorf("making files as user %d: %w", id, unix.EPERM)
		}
		return unix.Capset(&header, &own[0])
	}
	if err := become(id); err != nil {
		return err
	}
	return errors.Join(fn(), become(0))
}
