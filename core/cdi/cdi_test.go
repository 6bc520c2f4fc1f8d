package cdi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const described = `{
  "cdiVersion": "0.6.0",
  "kind": "nvidia.com/gpu",
  "containerEdits": {"env": ["DRIVER=1"]},
  "devices": [
    {"name": "0", "containerEdits": {"env": ["GPU0=1"], "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null"}]}},
    {"name": "1", "containerEdits": {"env": ["GPU1=1"]}},
    {"name": "all", "containerEdits": {"env": ["GPU0=1", "GPU1=1"], "mounts": [{"hostPath": "/usr/lib", "containerPath": "/gpu", "options": ["ro", "bind"]}]}}
  ]
}`

func devices(t *testing.T, files map[string]string) Devices {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Devices{Dirs: []string{filepath.Join(dir, "missing"), dir}}
}

func TestDevicesAreListedWithWhatIsWrong(t *testing.T) {
	d := devices(t, map[string]string{"gpu.json": described, "broken.json": "{"})
	names, problems := d.List()
	if diff := cmp.Diff([]string{"nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"}, names); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	if len(problems) != 1 || !strings.Contains(problems[0], "broken.json") {
		t.Errorf("problems %q", problems)
	}
	if names, problems := (Devices{}).List(); names != nil || problems != nil {
		t.Errorf("without directories: %q, %q", names, problems)
	}
}

func TestRequestedDevicesAreInjected(t *testing.T) {
	d := devices(t, map[string]string{"gpu.json": described})
	gpu := [][]string{{"gpu"}}
	for name, c := range map[string]struct {
		request container.DeviceRequest
		env     []string
	}{
		"by name":        {container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"nvidia.com/gpu=1"}}, []string{"DRIVER=1", "GPU1=1"}},
		"all GPUs":       {container.DeviceRequest{Count: -1, Capabilities: gpu}, []string{"DRIVER=1", "GPU0=1", "GPU1=1"}},
		"one GPU":        {container.DeviceRequest{Driver: "nvidia", Count: 1, Capabilities: gpu}, []string{"DRIVER=1", "GPU0=1"}},
		"a certain GPU":  {container.DeviceRequest{DeviceIDs: []string{"1"}, Capabilities: gpu}, []string{"DRIVER=1", "GPU1=1"}},
		"several of all": {container.DeviceRequest{Count: 2, Capabilities: [][]string{{"utility", "gpu"}}}, []string{"DRIVER=1", "GPU0=1", "GPU1=1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
			if err := d.Inject(s, []container.DeviceRequest{c.request}); err != nil {
				t.Fatal(err)
			}
			slices.Sort(s.Process.Env)
			if diff := cmp.Diff(c.env, s.Process.Env); diff != "" {
				t.Errorf("environment (-want +got):\n%s", diff)
			}
		})
	}
}

func TestADevicesNodeComesWithItsRule(t *testing.T) {
	d := devices(t, map[string]string{"gpu.json": described})
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
	if err := d.Inject(s, []container.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"nvidia.com/gpu=0"}}}); err != nil {
		t.Fatal(err)
	}
	if l := s.Linux; len(l.Devices) != 1 || l.Devices[0].Path != "/dev/gpu0" || l.Devices[0].Major != 1 || l.Devices[0].Minor != 3 ||
		len(l.Resources.Devices) != 1 || !l.Resources.Devices[0].Allow || *l.Resources.Devices[0].Minor != 3 {
		t.Errorf("devices %+v, rules %+v", l.Devices, l.Resources.Devices)
	}
}

func TestWhatNobodyDescribesIsRefused(t *testing.T) {
	gpus, none := devices(t, map[string]string{"gpu.json": described}), devices(t, nil)
	gpu := [][]string{{"gpu"}}
	for _, c := range []struct {
		devices Devices
		request container.DeviceRequest
		text    string
	}{
		{gpus, container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"nvidia.com/gpu=7"}}, "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7"},
		{gpus, container.DeviceRequest{Count: 3, Capabilities: gpu}, "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=2"},
		{gpus, container.DeviceRequest{Driver: "cdi", Count: 1}, "unexpected count in CDI device request"},
		{gpus, container.DeviceRequest{Driver: "cdi", Options: map[string]string{"a": "b"}}, "unexpected options in CDI device request"},
		{gpus, container.DeviceRequest{Count: 1, DeviceIDs: []string{"0"}, Capabilities: gpu}, "cannot set both Count and DeviceIDs on device request"},
		{gpus, container.DeviceRequest{Driver: "nosuch", Capabilities: gpu}, `could not select device driver "nosuch" with capabilities: [[gpu]]`},
		{gpus, container.DeviceRequest{Capabilities: [][]string{{"tpu"}}}, `could not select device driver "" with capabilities: [[tpu]]`},
		{none, container.DeviceRequest{Count: -1, Capabilities: gpu}, `could not select device driver "" with capabilities: [[gpu]]`},
		{Devices{}, container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"nvidia.com/gpu=0"}}, `could not select device driver "cdi" with capabilities: []`},
	} {
		err := c.devices.Inject(&specs.Spec{}, []container.DeviceRequest{c.request})
		if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), c.text) {
			t.Errorf("%+v is answered %v, want %q", c.request, err, c.text)
		}
	}
}
