package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/plugins/runtime-native/resctrl"
)

// className is the file that notes a container's class of service.
const className = "resctrl.json"

// makeClass makes a container's class of service; nil if it asks for none.
func (d *Driver) makeClass(id string, rdt *specs.LinuxIntelRdt) (*resctrl.Class, error) {
	if rdt == nil {
		return nil, nil
	}
	if !resctrl.Available() {
		return nil, fmt.Errorf("linux.intelRdt: no resctrl filesystem is mounted at %s: %w", resctrl.Mountpoint, errdefs.ErrFailedPrecondition)
	}
	class, err := resctrl.New(resctrl.Mountpoint, id, rdt)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(class)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(d.dir(id), className), body, 0o600); err != nil {
		return nil, err
	}
	return class, class.Make(rdt)
}

func (d *Driver) removeClass(id string) error {
	body, err := os.ReadFile(filepath.Join(d.dir(id), className))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var class resctrl.Class
	if err == nil {
		err = json.Unmarshal(body, &class)
	}
	if err == nil {
		err = class.Remove()
	}
	if err != nil {
		return fmt.Errorf("removing the class of service of %s: %w", id, err)
	}
	return nil
}
