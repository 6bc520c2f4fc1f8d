package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/davit-engine/davit/sdk/volume"
)

// record is a volume on disk: <root>/volumes/<name>/volume.json beside _data. It
// says nothing of who uses a volume. The name in it is for people: the
// directory's counts.
type record struct {
	Name    string
	Source  string `json:",omitempty"` // volume that it is a clone of
	Options map[string]string
	Labels  map[string]string
	Created time.Time
}

const recordName = "volume.json"

func (d *Driver) dir(name string) string  { return filepath.Join(d.root, "volumes", name) }
func (d *Driver) data(name string) string { return filepath.Join(d.dir(name), "_data") }
func (d *Driver) trash() string           { return filepath.Join(d.root, "trash") }

func (d *Driver) describe(r record) volume.Volume {
	return volume.Volume{Name: r.Name, Mountpoint: d.data(r.Name), Options: maps.Clone(r.Options), Labels: maps.Clone(r.Labels), Created: r.Created}
}

// write puts a record into a volume's directory. It is whole or not there, also
// after a loss of power.
func write(dir string, r record) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, recordName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// read reads the record of a volume's directory; fs.ErrNotExist says that its
// creation was cut off.
func read(dir string) (record, error) {
	var r record
	body, err := os.ReadFile(filepath.Join(dir, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil {
		return r, fmt.Errorf("record of volume %s: %w", filepath.Base(dir), err)
	}
	return r, nil
}
