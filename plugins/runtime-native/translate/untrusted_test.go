package translate

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/sdk/monitor/sandbox"
)

// Numbers that only fit when they are cut must not become others.
func TestCVE_2021_43784_NumbersAreNotCut(t *testing.T) {
	for _, d := range []specs.LinuxDevice{
		{Path: "/dev/x", Type: "b", Major: 1<<32 + 8, Minor: 0}, {Path: "/dev/x", Type: "c", Major: 1, Minor: 1<<32 + 1},
		{Path: "/dev/x", Type: "c", Major: -1, Minor: 1},
	} {
		if list, err := convertDevices([]specs.LinuxDevice{d}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("device %d:%d became %+v, %v", d.Major, d.Minor, list[len(list)-1], err)
		}
	}
}

// A process that is given no capabilities has none: all would be the engine's.
func TestCVE_2022_29162_NoCapabilitiesAreNone(t *testing.T) {
	p, err := Process(&specs.Process{Args: []string{"true"}})
	if err != nil || p.Caps == nil || *p.Caps != (sandbox.Caps{}) {
		t.Errorf("got %+v, %v", p.Caps, err)
	}
}

// Part of a volume is asked for in mount(8)'s words, and never above it.
func TestCVE_2021_25741_SubdirIsBelow(t *testing.T) {
	m, err := convertMount("bind", "/volume", "/data", []string{"rbind", "X-mount.subdir=a/b"})
	if err != nil || m.Subdir != "a/b" || m.Source != "/volume" {
		t.Errorf("got %+v, %v", m, err)
	}
	for _, subdir := range []string{"../a", "/a", "a/../../b", ""} {
		if _, err := convertMount("bind", "/volume", "/data", []string{"rbind", "X-mount.subdir=" + subdir}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("subdir %q: %v", subdir, err)
		}
	}
	if _, err := convertMount("tmpfs", "tmpfs", "/data", []string{"X-mount.subdir=a"}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("of a tmpfs: %v", err)
	}
}

// FuzzProcess feeds any JSON that is the process of an exec: an error or a
// process, and no capability that was not named.
func FuzzProcess(f *testing.F) {
	f.Add([]byte(`{"args":["sh"],"cwd":"/","user":{"uid":1,"gid":1,"additionalGids":[2]}}`))
	f.Add([]byte(`{"args":[""],"capabilities":{"bounding":["CAP_CHOWN","chown",""],"inheritable":["CAP_SYS_ADMIN"]}}`))
	f.Add([]byte(`{"args":["a"],"rlimits":[{"type":"RLIMIT_NOFILE","soft":18446744073709551615}],"oomScoreAdj":-99999,"consoleSize":{"height":4294967297}}`))
	f.Add([]byte(`{"args":["a"],"scheduler":{"policy":"SCHED_DEADLINE","runtime":1},"ioPriority":{"class":"x"},"execCPUAffinity":{"initial":"0-","final":"9999999999"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var process specs.Process
		if json.Unmarshal(body, &process) != nil {
			return
		}
		p, err := Process(&process)
		if err != nil {
			return
		}
		if process.Capabilities == nil && *p.Caps != (sandbox.Caps{}) || process.Capabilities != nil && len(process.Capabilities.Inheritable) == 0 && p.Caps.Inheritable != 0 {
			t.Errorf("capabilities are %+v", *p.Caps)
		}
		_, _, _ = CPUAffinity(process.ExecCPUAffinity)
		if _, err := json.Marshal(p); err != nil {
			t.Fatal(err)
		}
	})
}
