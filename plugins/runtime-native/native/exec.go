package native

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/translate"
	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/monitor/launch"
	"github.com/davit-engine/davit/sdk/monitor/sandbox"
	"github.com/davit-engine/davit/sdk/runtime"
)

// execTemplate is what every exec of a container takes from the container's
// spec.
type execTemplate struct {
	Seccomp     *sandbox.Seccomp `json:"seccomp,omitempty"`
	OOMScoreAdj *int             `json:"oomScoreAdj,omitempty"`
	Caps        *sandbox.Caps    `json:"caps,omitempty"` // of an exec that asks for none in particular

	Birth        launch.Birth          `json:"birth"`
	Personality  *uint32               `json:"personality,omitempty"`
	MemoryPolicy *sandbox.MemoryPolicy `json:"memoryPolicy,omitempty"`
}

// Exec implements runtime.Driver.
func (d *Driver) Exec(ctx context.Context, e runtime.Exec) (runtime.Process, error) {
	if err := checkID(e.ExecID); err != nil {
		return runtime.Process{}, err
	}
	r, err := d.load(e.ID)
	if err != nil {
		return runtime.Process{}, err
	}
	var process specs.Process
	if err := json.Unmarshal(e.Process, &process); err != nil {
		return runtime.Process{}, fmt.Errorf("reading the OCI process: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if d.foreign != nil {
		return d.execForeign(ctx, e, process)
	}
	var template execTemplate
	body, err := os.ReadFile(filepath.Join(d.dir(e.ID), "exec-template.json"))
	if err == nil {
		err = json.Unmarshal(body, &template)
	}
	if err != nil {
		return runtime.Process{}, fmt.Errorf("reading the container's exec template: %w", err)
	}
	converted, err := translate.Process(&process)
	if err != nil {
		return runtime.Process{}, err
	}
	converted.Terminal = e.IO.Terminal
	if e.IO.Width > 0 && e.IO.Height > 0 {
		converted.Width, converted.Height = e.IO.Width, e.IO.Height
	}
	birth := template.Birth
	if birth.Affinity, converted.Affinity, err = translate.CPUAffinity(process.ExecCPUAffinity); err != nil {
		return runtime.Process{}, err
	}
	converted.Keyring, converted.Personality, converted.MemoryPolicy = keyring(e.ID), template.Personality, template.MemoryPolicy
	if unknown := translate.UnknownCapabilities(&process); len(unknown) > 0 {
		d.log.Warn("capabilities are unknown and left out", "container", e.ID, "exec", e.ExecID, "capabilities", unknown)
	}
	if converted.OOMScoreAdj == nil {
		converted.OOMScoreAdj = template.OOMScoreAdj
	}
	if process.Capabilities == nil {
		converted.Caps = template.Caps
	}
	stage := sandbox.Config{Process: converted, Join: sandbox.Namespaces, Seccomp: template.Seccomp, HugePages: d.hugePages}
	birth = translate.ForExec(birth, &stage)
	request := monitor.Request{Op: monitor.OpExec, Exec: e.ExecID}
	if request.Stage, err = stage.Encode(); err != nil {
		return runtime.Process{}, err
	}
	if request.Birth, err = json.Marshal(birth); err != nil {
		return runtime.Process{}, err
	}
	s := d.streams(e.IO)
	request.Streams = &s
	group, err := cgroup.Open(r.Cgroup)
	if err != nil {
		return runtime.Process{}, err
	}
	request.CgroupFiles, request.CgroupDir = group.Joining()
	response, err := d.ask(ctx, e.ID, request)
	if err != nil {
		return runtime.Process{}, err
	}
	return runtime.Process{PID: response.PID, Socket: d.socket(e.ID)}, nil
}
