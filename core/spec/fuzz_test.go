package spec

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// Whatever a client asks for, the spec is refused or keeps what protects the
// host: no inheritable capabilities, masks unless they were taken off by name,
// sysctls below the container's own.
func FuzzBuild(f *testing.F) {
	f.Add(`{}`, `{}`)
	f.Add(`{"Cmd":["sh"],"User":"0:0","WorkingDir":"/proc/self/fd/7"}`, `{"CapAdd":["ALL"],"SecurityOpt":["no-new-privileges","seccomp=unconfined"]}`)
	f.Add(`{"Cmd":["sh"],"User":"nobody:staff","Env":["A","B=","=C"]}`, `{"Sysctls":{"net/../kernel/core_pattern":"|/x","net.ipv4.ip_forward":"1"},"Ulimits":[{"Name":"nofile","Soft":-1,"Hard":-1},null]}`)
	f.Add(`{"Cmd":[""],"Tty":true}`, `{"Privileged":true,"ConsoleSize":[99999999999,1],"Devices":[{"PathOnHost":"/dev/null","PathInContainer":"../x","CgroupPermissions":"rwmx"}]}`)
	f.Add(`{"Cmd":["a"]}`, `{"MaskedPaths":[],"ReadonlyPaths":["/proc/../etc"],"CgroupnsMode":"private","IpcMode":"none","BlkioWeightDevice":[null],"DeviceRequests":[{}]}`)
	f.Fuzz(func(t *testing.T, config, host string) {
		in := input(nil)
		if json.Unmarshal([]byte(config), in.Config) != nil || json.Unmarshal([]byte(host), in.HostConfig) != nil {
			return
		}
		s, err := Build(in)
		if err != nil {
			return
		}
		if _, err := Marshal(s); err != nil {
			t.Fatal(err)
		}
		if c := s.Process.Capabilities; c == nil || len(c.Inheritable)+len(c.Ambient) > 0 {
			t.Errorf("capabilities %+v", c)
		}
		if !in.HostConfig.Privileged && in.HostConfig.MaskedPaths == nil && len(s.Linux.MaskedPaths) == 0 && !systemPaths(in.HostConfig) {
			t.Error("nothing is masked")
		}
		for key := range s.Linux.Sysctl {
			if !strings.HasPrefix(key, "net") && !strings.HasPrefix(key, "fs.mqueue.") && !strings.HasPrefix(key, "kernel.") {
				t.Errorf("sysctl %q", key)
			}
		}
	})
}

func systemPaths(host *container.HostConfig) bool {
	for _, option := range host.SecurityOpt {
		if strings.HasPrefix(option, "systempaths") {
			return true
		}
	}
	return false
}
