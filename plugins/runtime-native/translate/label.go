package translate

import (
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// Files that tell whether the kernel enforces labels.
const (
	appArmorEnabled = "/sys/module/apparmor/parameters/enabled"
	selinuxEnforce  = "/sys/fs/selinux/enforce"
)

// labels gives a process its AppArmor profile and SELinux label. A kernel without
// them cannot keep the promise, which is an error; "unconfined" promises nothing.
func labels(p *specs.Process, result *sandbox.Process) error {
	if profile := p.ApparmorProfile; profile != "" && profile != "unconfined" {
		if body, err := os.ReadFile(appArmorEnabled); err != nil || !strings.HasPrefix(string(body), "Y") {
			return fmt.Errorf("process.apparmorProfile %q: the kernel has no AppArmor: %w", profile, errdefs.ErrFailedPrecondition)
		}
		result.AppArmor = profile
	}
	if p.SelinuxLabel != "" {
		if err := selinux("process.selinuxLabel", p.SelinuxLabel); err != nil {
			return err
		}
		result.SELinux = p.SelinuxLabel
	}
	return nil
}

func selinux(field, label string) error {
	if _, err := os.Stat(selinuxEnforce); err != nil {
		return fmt.Errorf("%s %q: the kernel has no SELinux policy: %w", field, label, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// labelMounts gives filesystems that the container makes a label for all their
// files. Those of the kernel's own views have labels from the policy, and binds
// have those of their source.
func labelMounts(label string, mounts []sandbox.Mount) error {
	if label == "" {
		return nil
	}
	if err := selinux("linux.mountLabel", label); err != nil {
		return err
	}
	for i := range mounts {
		switch m := &mounts[i]; m.Type {
		case "bind", "proc", "sysfs", "cgroup", "cgroup2", "mqueue":
		default:
			if !m.Link && !m.Remount {
				m.Data = append(m.Data, "context="+label)
			}
		}
	}
	return nil
}
