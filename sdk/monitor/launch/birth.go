package launch

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/monitor/fork"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// Birth is what a stage cannot give itself: user and time namespaces, and what
// it has no rights for once it is in them. The zero value is a stage that needs
// none of it.
type Birth struct {
	// UIDs and GIDs are the maps of a new user namespace; nil for none.
	UIDs []fork.Map `json:"uids,omitempty"`
	GIDs []fork.Map `json:"gids,omitempty"`
	// TimeOffsets make a new time namespace with what timens_offsets is told (see
	// time_namespaces(7)); nil for none.
	TimeOffsets *string `json:"timeOffsets,omitempty"`
	// Enter are the namespaces (CLONE_NEW*) of Stage.Init that are entered before
	// the stage is executed.
	Enter int `json:"enter,omitempty"`
	// OOMScoreAdj and the hard ones of Rlimits need rights on the host.
	OOMScoreAdj *int             `json:"oomScoreAdj,omitempty"`
	Rlimits     []sandbox.Rlimit `json:"rlimits,omitempty"`
	// Affinity are the processors to run on before the cgroup is joined.
	Affinity []int `json:"affinity,omitempty"`
	// StreamOwner is the host's user to whom the standard streams belong; 0 leaves
	// them.
	StreamOwner int `json:"streamOwner,omitempty"`
	// Sysctls by their path below /proc/sys are set in the namespaces of Stage.Join.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Prepare are mounts made for the stage; nil for none.
	Prepare *sandbox.Preparation `json:"prepare,omitempty"`
}

// threadless are the namespaces that only a process with one thread, or one with
// a root directory of its own, can enter.
const threadless = unix.CLONE_NEWUSER | unix.CLONE_NEWTIME | unix.CLONE_NEWNS

// delivered says whether the stage has to be born by package fork.
func (s *Stage) delivered() bool {
	return len(s.UIDs) > 0 || s.TimeOffsets != nil || s.Enter != 0 ||
		slices.ContainsFunc(s.Join, func(j Join) bool { return j.Type&threadless != 0 })
}

// join enters namespaces by path. Those that have to be entered by the child are
// answered, open, the user namespace last.
func (s *Stage) join() (later []fork.Namespace, err error) {
	delivered := s.delivered()
	order := func(j Join) int {
		switch j.Type {
		case unix.CLONE_NEWUSER:
			return 2
		case unix.CLONE_NEWTIME, unix.CLONE_NEWNS:
			return 1
		}
		return 0
	}
	for _, join := range slices.SortedStableFunc(slices.Values(s.Join), func(a, b Join) int { return order(a) - order(b) }) {
		fd, err := unix.Open(join.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return later, fmt.Errorf("opening namespace %s: %w", join.Path, err)
		}
		if join.Type&threadless != 0 || delivered && join.Type == unix.CLONE_NEWPID {
			later = append(later, fork.Namespace{FD: fd, Types: join.Type})
			continue
		}
		err = unix.Setns(fd, join.Type)
		_ = unix.Close(fd)
		if err != nil {
			return later, fmt.Errorf("joining namespace %s: %w", join.Path, err)
		}
	}
	for path, value := range s.Sysctls {
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0o644); err != nil {
			return later, fmt.Errorf("setting sysctls: %w", err)
		}
	}
	return later, nil
}

// deliver starts the stage in namespaces that the calling thread cannot enter.
func (s *Stage) deliver(files []uintptr, enter []fork.Namespace, executable, cgroup int) (int, error) {
	child := fork.Child{Enter: enter, Flags: uint64(s.Flags), CgroupFD: cgroup, Executable: executable, Args: []string{s.Name}, Env: environment, Files: files}
	if s.Enter != 0 {
		child.Enter = append(child.Enter, fork.Namespace{FD: s.Init, Types: s.Enter})
	}
	if len(s.UIDs) > 0 {
		namespace, err := fork.UserNamespace(s.UIDs, s.GIDs)
		if err != nil {
			return 0, err
		}
		defer func() { _ = unix.Close(namespace) }()
		child.Enter = append(child.Enter, fork.Namespace{FD: namespace, Types: unix.CLONE_NEWUSER})
	}
	if s.TimeOffsets != nil {
		child.TimeOffsets = []byte(*s.TimeOffsets)
		if child.TimeOffsets == nil {
			child.TimeOffsets = []byte{}
		}
	}
	if s.OOMScoreAdj != nil {
		child.OOMScoreAdj = strconv.Itoa(*s.OOMScoreAdj)
	}
	return child.Start()
}

// own gives the standard streams to the user that the container's root is on the
// host. Only pipes: files and terminals are somebody's.
func (s *Stage) own() error {
	if s.StreamOwner == 0 {
		return nil
	}
	for _, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFIFO {
			continue
		}
		if err := unix.Fchown(int(f.Fd()), s.StreamOwner, -1); err != nil {
			return fmt.Errorf("giving away a standard stream: %w", err)
		}
	}
	return nil
}

// raise lifts hard limits for the stage, which then sets what is wanted.
func (s *Stage) raise(pid int) error {
	for _, limit := range s.Rlimits {
		var now unix.Rlimit
		if err := unix.Prlimit(pid, limit.Resource, nil, &now); err != nil {
			return fmt.Errorf("limit %d: %w", limit.Resource, err)
		}
		if now.Max >= limit.Hard {
			continue
		}
		now.Max = limit.Hard
		// Without the right to do so the stage takes what there is.
		if err := unix.Prlimit(pid, limit.Resource, &now, nil); err != nil && err != unix.EPERM {
			return fmt.Errorf("raising limit %d: %w", limit.Resource, err)
		}
	}
	return nil
}

// sendMounts makes the stage's mounts, on a thread that is not used again, and
// sends them.
func (c *Child) sendMounts() error {
	type result struct {
		fds []int
		err error
	}
	made := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fds, err := c.prepare.Make()
		made <- result{fds, err}
	}()
	got := <-made
	if got.err != nil {
		return got.err
	}
	defer func() {
		for _, fd := range got.fds {
			_ = unix.Close(fd)
		}
	}()
	for batch := range slices.Chunk(got.fds, sandbox.MaxDescriptors) {
		if err := unix.Sendmsg(int(c.sync.Fd()), []byte{sandbox.MessageMounts}, unix.UnixRights(batch...), nil, 0); err != nil {
			return fmt.Errorf("sending mounts to the container's init: %w", err)
		}
	}
	return nil
}
