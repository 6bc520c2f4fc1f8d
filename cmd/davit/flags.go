package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// createFlags are the flags of run and create.
type createFlags struct {
	name, platform, pull, cidfile, envFile, labelFile    string
	detach, interactive, tty, rm, quiet                  bool
	attach                                               []string
	detachKeys                                           string
	sigProxy                                             bool
	publish, expose, volumes, mounts, tmpfs              []string
	env, labels, annotations                             []string
	networks, aliases, links                             []string
	ip, ip6, mac                                         string
	addHosts, dns, dnsSearch, dnsOptions                 []string
	restart, entrypoint, logDriver, volumeDriver         string
	logOpts, storageOpts, ulimits, devices, deviceRules  []string
	sysctls, securityOpts                                []string
	readBps, writeBps, readIOps, writeIOps, blkioWeights []string
	memory, memorySwap, memoryReservation, shmSize, cpus string
	swappiness, pidsLimit                                int64
	stopTimeout                                          int
	oomKillDisable, init, noHealthcheck                  bool
	healthCmd, healthInterval, healthTimeout             string
	healthStart, healthStartInterval, gpus               string
	healthRetries                                        int
	pid, ipc, uts, cgroupns, userns                      string
	config                                               container.Config
	host                                                 container.HostConfig
	set                                                  *pflag.FlagSet
}

// add defines the flags, with Docker's names, letters and texts.
func (f *createFlags) add(set *pflag.FlagSet) {
	f.set = set
	s, ss, b := set.StringVar, set.StringArrayVar, set.BoolVar
	s(&f.name, "name", "", "Assign a name to the container")
	s(&f.platform, "platform", "", "Set platform if server is multi-platform capable")
	s(&f.pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	b(&f.quiet, "quiet", false, "Suppress the pull output")
	s(&f.cidfile, "cidfile", "", "Write the container ID to the file")
	set.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	set.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	b(&f.rm, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	set.StringArrayVarP(&f.attach, "attach", "a", nil, "Attach to STDIN, STDOUT or STDERR")
	set.StringArrayVarP(&f.publish, "publish", "p", nil, "Publish a container's port(s) to the host")
	set.BoolVarP(&f.host.PublishAllPorts, "publish-all", "P", false, "Publish all exposed ports to random ports")
	ss(&f.expose, "expose", nil, "Expose a port or a range of ports")
	set.StringArrayVarP(&f.volumes, "volume", "v", nil, "Bind mount a volume")
	ss(&f.mounts, "mount", nil, "Attach a filesystem mount to the container")
	ss(&f.tmpfs, "tmpfs", nil, "Mount a tmpfs directory")
	ss(&f.host.VolumesFrom, "volumes-from", nil, "Mount volumes from the specified container(s)")
	s(&f.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	set.StringArrayVarP(&f.env, "env", "e", nil, "Set environment variables")
	s(&f.envFile, "env-file", "", "Read in a file of environment variables")
	set.StringVarP(&f.config.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	set.StringVarP(&f.config.User, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	ss(&f.host.GroupAdd, "group-add", nil, "Add additional groups to join")
	s(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	set.StringVarP(&f.config.Hostname, "hostname", "h", "", "Container host name")
	s(&f.config.Domainname, "domainname", "", "Container NIS domain name")
	set.StringArrayVarP(&f.labels, "label", "l", nil, "Set meta data on a container")
	s(&f.labelFile, "label-file", "", "Read in a line delimited file of labels")
	ss(&f.annotations, "annotation", nil, "Add an annotation to the container (passed through to the OCI runtime)")
	ss(&f.networks, "network", nil, "Connect a container to a network")
	ss(&f.networks, "net", nil, "Connect a container to a network")
	_ = set.MarkHidden("net")
	ss(&f.aliases, "network-alias", nil, "Add network-scoped alias for the container")
	ss(&f.links, "link", nil, "Add link to another container")
	s(&f.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	s(&f.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	s(&f.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	ss(&f.addHosts, "add-host", nil, "Add a custom host-to-IP mapping (host:ip)")
	ss(&f.dns, "dns", nil, "Set custom DNS servers")
	ss(&f.dnsSearch, "dns-search", nil, "Set custom DNS search domains")
	ss(&f.dnsOptions, "dns-option", nil, "Set DNS options")
	s(&f.restart, "restart", "no", "Restart policy to apply when a container exits")
	s(&f.logDriver, "log-driver", "", "Logging driver for the container")
	ss(&f.logOpts, "log-opt", nil, "Log driver options")
	ss(&f.storageOpts, "storage-opt", nil, "Storage driver options for the container")
	s(&f.config.StopSignal, "stop-signal", "", "Signal to stop the container")
	set.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	b(&f.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	s(&f.host.Runtime, "runtime", "", "Runtime to use for this container")
	f.addResources(set)
	set.Int64Var(&f.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	ss(&f.blkioWeights, "blkio-weight-device", nil, "Block IO weight (relative device weight)")
	ss(&f.readBps, "device-read-bps", nil, "Limit read rate (bytes per second) from a device")
	ss(&f.writeBps, "device-write-bps", nil, "Limit write rate (bytes per second) to a device")
	ss(&f.readIOps, "device-read-iops", nil, "Limit read rate (IO per second) from a device")
	ss(&f.writeIOps, "device-write-iops", nil, "Limit write rate (IO per second) to a device")
	s((*string)(&f.host.Isolation), "isolation", "", "Container isolation technology")
	ss(&f.ulimits, "ulimit", nil, "Ulimit options")
	ss(&f.devices, "device", nil, "Add a host device to the container")
	ss(&f.deviceRules, "device-cgroup-rule", nil, "Add a rule to the cgroup allowed devices list")
	s(&f.gpus, "gpus", "", "GPU devices to add to the container ('all' to pass all GPUs)")
	ss(&f.host.CapAdd, "cap-add", nil, "Add Linux capabilities")
	ss(&f.host.CapDrop, "cap-drop", nil, "Drop Linux capabilities")
	b(&f.host.Privileged, "privileged", false, "Give extended privileges to this container")
	b(&f.host.ReadonlyRootfs, "read-only", false, "Mount the container's root filesystem as read only")
	ss(&f.securityOpts, "security-opt", nil, "Security Options")
	ss(&f.sysctls, "sysctl", nil, "Sysctl options")
	s(&f.shmSize, "shm-size", "", "Size of /dev/shm")
	set.IntVar(&f.host.OomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	b(&f.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	s(&f.pid, "pid", "", "PID namespace to use")
	s(&f.ipc, "ipc", "", "IPC mode to use")
	s(&f.uts, "uts", "", "UTS namespace to use")
	s(&f.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)")
	s(&f.userns, "userns", "", "User namespace to use")
	s(&f.host.CgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	s(&f.healthCmd, "health-cmd", "", "Command to run to check health")
	s(&f.healthInterval, "health-interval", "", "Time between running the check (ms|s|m|h)")
	s(&f.healthTimeout, "health-timeout", "", "Maximum time to allow one check to run (ms|s|m|h)")
	s(&f.healthStart, "health-start-period", "", "Start period for the container to initialize (ms|s|m|h)")
	s(&f.healthStartInterval, "health-start-interval", "", "Time between running the check during the start period (ms|s|m|h)")
	set.IntVar(&f.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	b(&f.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
	set.SetInterspersed(false) // what follows the image is the command's
}

// addResources defines the limits, which update has, too.
func (f *createFlags) addResources(set *pflag.FlagSet) {
	s, r := set.StringVar, &f.host.Resources
	set.StringVarP(&f.memory, "memory", "m", "", "Memory limit")
	s(&f.memorySwap, "memory-swap", "", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	s(&f.memoryReservation, "memory-reservation", "", "Memory soft limit")
	s(&f.cpus, "cpus", "", "Number of CPUs")
	set.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	set.Int64Var(&r.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	set.Int64Var(&r.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	set.Int64Var(&r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	set.Int64Var(&r.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	s(&r.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	s(&r.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	set.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	set.Uint16Var(&r.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable")
}

// resources reads the limits.
func (f *createFlags) resources() (container.Resources, error) {
	r := f.host.Resources
	for _, size := range []struct {
		text, flag string
		to         *int64
	}{{f.memory, "memory", &r.Memory}, {f.memorySwap, "memory-swap", &r.MemorySwap}, {f.memoryReservation, "memory-reservation", &r.MemoryReservation}, {f.shmSize, "shm-size", &f.host.ShmSize}} {
		if size.text == "" {
			continue
		}
		if size.flag == "memory-swap" && size.text == "-1" {
			*size.to = -1
			continue
		}
		value, err := units.RAMInBytes(size.text)
		if err != nil {
			return r, fmt.Errorf("invalid argument %q for \"--%s\" flag: %w", size.text, size.flag, err)
		}
		*size.to = value
	}
	if f.cpus != "" {
		value, err := strconv.ParseFloat(f.cpus, 64)
		if err != nil || value < 0 {
			return r, fmt.Errorf("invalid argument %q for \"--cpus\" flag: failed to parse %s as a rational number", f.cpus, f.cpus)
		}
		r.NanoCPUs = int64(value*1e9 + 0.5)
	}
	if f.set != nil && f.set.Changed("memory-swappiness") && f.swappiness != -1 {
		r.MemorySwappiness = &f.swappiness
	}
	if f.pidsLimit != 0 {
		r.PidsLimit = &f.pidsLimit
	}
	if f.oomKillDisable {
		r.OomKillDisable = &f.oomKillDisable
	}
	return r, nil
}

func addresses(flag string, list []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, text := range list {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%s is not an ip address (--%s)", text, flag)
		}
		out = append(out, address)
	}
	return out, nil
}

// pairs reads key=value flags; one without "=" takes its value from the
// environment where lookup is set.
func pairs(list []string) map[string]string {
	if len(list) == 0 {
		return nil
	}
	out := make(map[string]string, len(list))
	for _, text := range list {
		key, value, _ := strings.Cut(text, "=")
		out[key] = value
	}
	return out
}

// environment reads --env-file and -e; a name alone takes this process's value.
func environment(file string, flags []string) ([]string, error) {
	lines, err := readLines(file)
	if err != nil {
		return nil, err
	}
	var env []string
	for _, entry := range append(lines, flags...) {
		if !strings.Contains(entry, "=") {
			value, ok := os.LookupEnv(entry)
			if !ok {
				continue
			}
			entry += "=" + value
		}
		env = append(env, entry)
	}
	return env, nil
}

func readLines(file string) ([]string, error) {
	if file == "" {
		return nil, nil
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(body)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

func parsePlatform(text string) (*ocispec.Platform, error) {
	if text == "" {
		return nil, nil
	}
	parts := strings.Split(text, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return nil, fmt.Errorf("invalid platform %q: want OS/ARCH or OS/ARCH/VARIANT", text)
	}
	p := &ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p, nil
}
