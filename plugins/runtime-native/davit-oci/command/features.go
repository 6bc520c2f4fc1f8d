package command

import (
	"flag"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/davit-engine/davit/plugins/runtime-native/translate"
)

// showFeatures prints what this runtime can do (runtime-spec, "Features
// Structure").
func showFeatures(a *app, _ *flag.FlagSet) func([]string) (int, error) {
	return func([]string) (int, error) { return 0, a.indented(abilities()) }
}

func abilities() features.Features {
	yes, no := true, false
	return features.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version,
		Hooks:        []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions: translate.Options(),
		Linux: &features.Linux{
			Namespaces: []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Cgroup:     &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &no, Rdma: &yes},
			Seccomp: &features.Seccomp{
				Enabled:   &yes,
				Actions:   []string{string(specs.ActAllow), string(specs.ActErrno), string(specs.ActKill), string(specs.ActKillProcess), string(specs.ActKillThread), string(specs.ActLog), string(specs.ActTrace), string(specs.ActTrap)},
				Operators: []string{string(specs.OpEqualTo), string(specs.OpGreaterEqual), string(specs.OpGreaterThan), string(specs.OpLessEqual), string(specs.OpLessThan), string(specs.OpMaskedEqual), string(specs.OpNotEqual)},
			},
			Apparmor: &features.Apparmor{Enabled: &yes}, Selinux: &features.Selinux{Enabled: &yes}, IntelRdt: &features.IntelRdt{Enabled: &no},
		},
	}
}
