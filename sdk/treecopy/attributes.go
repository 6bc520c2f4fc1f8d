package treecopy

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Attributes gives one file the owner, mode, extended attributes and times of
// another. Both may be held with O_PATH, and symbolic links.
func Attributes(from, into *os.File) error {
	var st, other unix.Stat_t
	if err := errors.Join(unix.Fstat(int(from.Fd()), &st), unix.Fstat(int(into.Fd()), &other)); err != nil {
		return err
	}
	if (st.Mode^other.Mode)&unix.S_IFMT != 0 {
		return fmt.Errorf("%s was replaced meanwhile", into.Name())
	}
	path := fdPath(into)
	// The change of an owner takes set-user-ID bits and capabilities away: it comes
	// first.
	if err := unix.Fchownat(int(into.Fd()), "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("owner: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(path, st.Mode&0o7777); err != nil {
			return fmt.Errorf("mode: %w", err)
		}
	}
	if err := extended(fdPath(from), path); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times, 0); err != nil {
		return fmt.Errorf("times: %w", err)
	}
	return nil
}

// extended copies extended attributes. A filesystem without room for their kind
// goes without.
func extended(from, into string) error {
	return eachExtended(from, func(name string, value []byte) error {
		if err := unix.Setxattr(into, name, value, 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
		return nil
	})
}

// ExtendedAttributes answers the extended attributes of a file, which may be held
// with O_PATH and be a symbolic link.
func ExtendedAttributes(of *os.File) (map[string]string, error) {
	attributes := map[string]string{}
	err := eachExtended(fdPath(of), func(name string, value []byte) error {
		attributes[name] = string(value)
		return nil
	})
	return attributes, err
}

// eachExtended calls fn for the extended attributes of a file.
func eachExtended(of string, fn func(name string, value []byte) error) error {
	names, err := filled(func(buffer []byte) (int, error) { return unix.Listxattr(of, buffer) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		if len(name) == 0 {
			continue
		}
		value, err := filled(func(buffer []byte) (int, error) { return unix.Getxattr(of, string(name), buffer) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
		if err := fn(string(name), value); err != nil {
			return err
		}
	}
	return nil
}

// filled reads what a system call writes into a buffer of a size that has to be
// asked for.
func filled(read func([]byte) (int, error)) ([]byte, error) {
	for {
		size, err := read(nil)
		if err != nil || size == 0 {
			return nil, err
		}
		buffer := make([]byte, size)
		n, err := read(buffer)
		if errors.Is(err, unix.ERANGE) {
			continue // it has grown
		}
		return buffer[:max(n, 0)], err
	}
}
