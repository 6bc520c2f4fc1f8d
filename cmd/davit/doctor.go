package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/client"
	"github.com/moby/sys/user"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// finding is one thing that was looked at.
type finding struct {
	what, state string
	verdict     verdict
	fix         string
}

type verdict int

const (
	good verdict = iota
	doubtful
	bad
)

var marks = map[verdict]string{good: "ok", doubtful: "warn", bad: "FAIL"}

// check looks at one part of the host.
type check func(ctx context.Context, a *app) []finding

func doctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Check whether this host can run containers, and say what to do if not", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			failed := 0
			for _, look := range []check{checkKernel, checkNamespaces, checkCgroups, checkCgroupDriver, checkOverlay, checkNftables, checkFirewall, checkSeccomp, checkUser, checkEngine} {
				for _, f := range look(cmd.Context(), a) {
					fmt.Fprintf(a.out, "%-5s %-22s %s\n", marks[f.verdict], f.what, f.state)
					if f.verdict != good && f.fix != "" {
						fmt.Fprintf(a.out, "      %-22s fix: %s\n", "", f.fix)
					}
					if f.verdict == bad {
						failed++
					}
				}
			}
			if failed > 0 {
				return &status{1, fmt.Sprintf("%d check%s failed", failed, plural(failed))}
			}
			fmt.Fprintln(a.out, "This host can run containers with davit.")
			return nil
		},
	}
}

// leastKernel has mount_setattr(2), the newest call that davit cannot do without.
var leastKernel = [2]int{5, 12}

func checkKernel(context.Context, *app) []finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return []finding{{"kernel", err.Error(), bad, ""}}
	}
	release := unix.ByteSliceToString(name.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return []finding{{"kernel", "cannot read the version " + release, doubtful, ""}}
	}
	if major < leastKernel[0] || major == leastKernel[0] && minor < leastKernel[1] {
		return []finding{{"kernel", release, bad, fmt.Sprintf("davit needs Linux %d.%d or later: install a newer kernel", leastKernel[0], leastKernel[1])}}
	}
	return []finding{{"kernel", release, good, ""}}
}

func checkNamespaces(context.Context, *app) []finding {
	var missing []string
	for _, name := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		if _, err := os.Stat("/proc/self/ns/" + name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return []finding{{"namespaces", "missing: " + strings.Join(missing, " "), bad, "use a kernel with CONFIG_NAMESPACES and all of its kinds"}}
	}
	return []finding{{"namespaces", "mnt pid net ipc uts cgroup", good, ""}}
}

func checkCgroups(context.Context, *app) []finding {
	wanted := []string{"memory", "pids", "cpu", "cpuset"}
	if body, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		have := strings.Fields(string(body))
		return controllers("cgroup v2", wanted, func(name string) bool { return slices.Contains(have, name) })
	}
	wanted = append(wanted, "devices", "freezer")
	return controllers("cgroup v1", wanted, func(name string) bool {
		_, err := os.Stat(filepath.Join("/sys/fs/cgroup", name))
		return err == nil
	})
}

// checkCgroupDriver says which cgroup_driver fits: where systemd owns the tree of
// cgroup v2 it should know of containers' groups.
func checkCgroupDriver(context.Context, *app) []finding {
	const what = "cgroup driver"
	if _, err := os.Lstat("/run/systemd/system"); err != nil {
		return []finding{{what, "cgroupfs: no systemd is running here", good, ""}}
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		return []finding{{what, "cgroupfs, or systemd: it is running, with cgroup v1", good, ""}}
	}
	return []finding{{what, "systemd is recommended: it is running, with cgroup v2 (cgroup_driver in /etc/davit/davit.toml)", good, ""}}
}

func controllers(what string, wanted []string, has func(string) bool) []finding {
	missing := slices.DeleteFunc(slices.Clone(wanted), has)
	switch {
	case len(missing) == len(wanted):
		return []finding{{what, "no controllers below /sys/fs/cgroup", bad, "mount cgroups: boot with systemd, or mount -t cgroup2 none /sys/fs/cgroup"}}
	case len(missing) > 0:
		return []finding{{what, "missing controllers: " + strings.Join(missing, " "), doubtful, "limits that need them fail; enable them in the kernel or on its command line (cgroup_enable=memory)"}}
	}
	return []finding{{what, strings.Join(wanted, " "), good, ""}}
}

func checkOverlay(context.Context, *app) []finding {
	body, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return []finding{{"overlayfs", err.Error(), bad, "mount /proc"}}
	}
	if !strings.Contains(string(body), "\toverlay\n") {
		return []finding{{"overlayfs", "not known to the kernel", bad, "modprobe overlay, or use another storage driver"}}
	}
	return []finding{{"overlayfs", "available", good, ""}}
}

// checkNftables asks the kernel for nftables' generation, the smallest question
// there is (struct nlmsghdr and nfgenmsg of netlink(7) and nfnetlink.h).
func checkNftables(context.Context, *app) []finding {
	const nftGetGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN
	refused := func(err error) []finding {
		fix := "modprobe nf_tables, or use a kernel with CONFIG_NF_TABLES"
		if errors.Is(err, unix.EPERM) {
			return []finding{{"nftables", "may not be asked", doubtful, "run davit doctor as root"}}
		}
		return []finding{{"nftables", err.Error(), bad, fix}}
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return refused(err)
	}
	defer func() { _ = unix.Close(fd) }()
	message := make([]byte, 20)
	binary.NativeEndian.PutUint32(message[0:], uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], nftGetGeneration)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return refused(err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return refused(err)
	}
	if n >= 20 && binary.NativeEndian.Uint16(answer[4:]) == unix.NLMSG_ERROR {
		if code := -int32(binary.NativeEndian.Uint32(answer[16:])); code > 0 {
			return refused(unix.Errno(code))
		}
	}
	return []finding{{"nftables", "available", good, ""}}
}

func checkSeccomp(context.Context, *app) []finding {
	if _, err := os.Stat("/proc/sys/kernel/seccomp/actions_avail"); err != nil {
		return []finding{{"seccomp", "not in this kernel", doubtful, "containers run only with --security-opt seccomp=unconfined: use a kernel with CONFIG_SECCOMP_FILTER"}}
	}
	return []finding{{"seccomp", "filters available", good, ""}}
}

func checkUser(_ context.Context, a *app) []finding {
	var list []finding
	socket, isUnix := strings.CutPrefix(a.address(), "unix://")
	if !isUnix {
		return nil
	}
	group, err := user.LookupGroup("davit")
	switch {
	case os.Geteuid() == 0:
		list = append(list, finding{"user", "root", good, ""})
	case unix.Access(socket, unix.R_OK|unix.W_OK) == nil:
		list = append(list, finding{"user", "may use " + socket, good, ""})
	default:
		list = append(list, finding{"user", "uid " + strconv.Itoa(os.Geteuid()) + " may not use " + socket, bad, "usermod -aG davit $USER, then log in again"})
	}
	if err != nil {
		list = append(list, finding{"group davit", "does not exist: only root may use the socket", doubtful, "groupadd --system davit, then restart davitd"})
	} else {
		list = append(list, finding{"group davit", "gid " + strconv.Itoa(group.Gid), good, ""})
	}
	return list
}

func checkEngine(ctx context.Context, a *app) []finding {
	api, err := a.engine()
	if err == nil {
		_, err = api.Ping(ctx, client.PingOptions{})
	}
	if err != nil {
		return []finding{{"engine", "no answer at " + a.address(), bad, "systemctl start davitd, or set DAVIT_HOST"}}
	}
	list := []finding{{"engine", "answers at " + a.address(), good, ""}}
	plugins, _, err := a.plugins(ctx)
	if err != nil {
		return append(list, finding{"drivers", err.Error(), doubtful, ""})
	}
	for _, p := range plugins {
		f := finding{"driver " + p.Name, p.State, good, ""}
		if p.State != "ready" && p.State != "idle" {
			f.state += ": " + p.LastError
			f.verdict, f.fix = doubtful, "see davit plugin inspect "+p.Name
			if p.Default {
				f.verdict = bad
			}
		}
		list = append(list, f)
	}
	return list
}
