package spec

import (
	"bytes"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ExecInput is what a further process of a container depends on.
type ExecInput struct {
	Config        *container.Config
	HostConfig    *container.HostConfig
	Request       container.ExecCreateRequest
	Passwd, Group []byte
	AppArmor      string // profile of those that name none
}

// BuildExec makes the process of an exec: the container's, with what the request
// changes.
func BuildExec(in ExecInput) (*specs.Process, error) {
	security, err := parseSecurity(in.HostConfig.SecurityOpt)
	if err != nil {
		return nil, err
	}
	if in.Request.Privileged {
		security.apparmor = unconfined
	}
	p := processInput{
		config: in.Config, host: in.HostConfig, security: security, apparmor: in.AppArmor, passwd: in.Passwd, group: in.Group,
		args: in.Request.Cmd, user: in.Request.User, cwd: in.Request.WorkingDir,
		terminal: in.Request.Tty, size: in.Request.ConsoleSize, privileged: in.Request.Privileged || in.HostConfig.Privileged,
		hostname: in.Config.Hostname, env: slices.Concat(in.Config.Env, in.Request.Env),
	}
	if p.user == "" {
		p.user = in.Config.User
	}
	if p.cwd == "" {
		p.cwd = in.Config.WorkingDir
	}
	return buildProcess(p)
}

type processInput struct {
	config        *container.Config
	host          *container.HostConfig
	security      security
	apparmor      string // profile of those that name none
	passwd, group []byte
	args          []string
	user, cwd     string
	terminal      bool
	size          *[2]uint // height, width
	privileged    bool
	hostname      string
	env           []string
}

func buildProcess(in processInput) (*specs.Process, error) {
	if len(in.args) == 0 {
		return nil, invalid("no command specified")
	}
	identity, err := lookUp(in)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Args: in.args, Cwd: in.cwd, Terminal: in.terminal, NoNewPrivileges: in.security.noNewPrivileges,
		User: specs.User{UID: uint32(identity.Uid), GID: uint32(identity.Gid), Umask: in.host.Umask},
	}
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if p.ApparmorProfile = in.security.apparmorProfile(in.privileged, in.apparmor); p.ApparmorProfile == unconfined {
		p.ApparmorProfile = ""
	}
	// The primary group is a supplementary one, too: without it, leaving the primary
	// group would be a way around permissions that are denied to it (CVE-2022-36109).
	p.User.AdditionalGids = []uint32{p.User.GID}
	for _, gid := range identity.Sgids {
		if uint32(gid) == p.User.GID {
			continue
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(gid))
	}
	if in.size != nil && in.terminal && in.size[0] > 0 {
		p.ConsoleSize = &specs.Box{Height: in.size[0], Width: in.size[1]}
	}
	defaults := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=" + in.hostname}
	if in.terminal {
		defaults = append(defaults, "TERM=xterm")
	}
	p.Env = mergeEnv(defaults, in.env)
	if !slices.ContainsFunc(p.Env, func(e string) bool { return len(e) >= 5 && e[:5] == "HOME=" }) {
		p.Env = append(p.Env, "HOME="+identity.Home)
	}
	caps, err := capabilities(in.privileged, in.host.CapAdd, in.host.CapDrop)
	if err != nil {
		return nil, err
	}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: caps}
	if identity.Uid == 0 {
		p.Capabilities.Effective, p.Capabilities.Permitted = caps, caps
	}
	if p.Rlimits, err = rlimits(in.host.Ulimits); err != nil {
		return nil, err
	}
	adjust := in.host.OomScoreAdj
	if adjust < -1000 || adjust > 1000 {
		return nil, invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", adjust)
	}
	p.OOMScoreAdj = &adjust // 0, too: the engine's own is not the container's
	return p, nil
}

// lookUp finds user and groups in the image's own files.
func lookUp(in processInput) (*user.ExecUser, error) {
	identity, err := user.GetExecUser(in.user, &user.ExecUser{Home: "/"}, bytes.NewReader(in.passwd), bytes.NewReader(in.group))
	if err != nil {
		return nil, errdefs.ErrInvalidArgument.WithMessage(err.Error())
	}
	if len(in.host.GroupAdd) > 0 {
		extra, err := user.GetAdditionalGroups(in.host.GroupAdd, bytes.NewReader(in.group))
		if err != nil {
			return nil, errdefs.ErrInvalidArgument.WithMessage(err.Error())
		}
		for _, gid := range extra {
			if !slices.Contains(identity.Sgids, gid) {
				identity.Sgids = append(identity.Sgids, gid)
			}
		}
	}
	if identity.Home == "" {
		identity.Home = "/"
	}
	return identity, nil
}
