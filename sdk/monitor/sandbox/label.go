package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// openLabel opens the file that takes the label of the next execve. It is the
// host's proc that is trusted with it: the container's comes later and may be
// anything. Only the thread that opened it can write it.
func (s *stage) openLabel() error {
	s.label = -1
	var paths []string
	switch {
	case s.Process.AppArmor != "":
		paths = []string{"/proc/thread-self/attr/apparmor/exec", "/proc/thread-self/attr/exec"} // before 5.8 only the second
	case s.Process.SELinux != "":
		paths = []string{"/proc/thread-self/attr/exec"}
	}
	for i, path := range paths {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			s.label = fd
			return nil
		}
		if i == len(paths)-1 || !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// setLabel says what execve changes the process's label to.
func (s *stage) setLabel() error {
	if s.label < 0 {
		return nil
	}
	label := s.Process.SELinux
	if s.Process.AppArmor != "" {
		label = "exec " + s.Process.AppArmor
	}
	_, err := unix.Write(s.label, []byte(label))
	switch {
	case err == nil:
		return nil
	case s.Process.AppArmor != "" && errors.Is(err, unix.ENOENT):
		// Not in errno's words: clients take those for a command that is missing.
		return fmt.Errorf("unable to apply apparmor profile: the kernel has no profile %q loaded, load it with apparmor_parser", s.Process.AppArmor)
	default:
		return fmt.Errorf("%q: %w", label, err)
	}
}
