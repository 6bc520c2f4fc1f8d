package volume

import (
	"context"
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	mobyvolume "github.com/moby/moby/api/types/volume"

	"github.com/davit-engine/davit/sdk/volume"
)

func (d *driver) Clone(ctx context.Context, source, name string, labels map[string]string) (volume.Volume, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		return volume.Volume{}, errors.New("a clone without a bound")
	}
	return d.Create(ctx, name, d.all[source].Options, labels)
}

func (d *driver) Rename(_ context.Context, name, newName string) (volume.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return volume.Volume{}, d.fail
	}
	if v, ok := d.all[name]; ok {
		delete(d.all, name)
		v.Name, v.Mountpoint = newName, "/place/"+newName
		d.all[newName] = v
	}
	v, ok := d.all[newName]
	if !ok {
		return v, errdefs.ErrNotFound
	}
	return v, nil
}

func busy(string) []string { return []string{"one"} }

func TestClone(t *testing.T) {
	s, d, again, _ := service(t)
	create(t, s, mobyvolume.CreateRequest{Name: "data", DriverOpts: map[string]string{"o": "1"}, Labels: map[string]string{"a": "b"}})
	create(t, s, mobyvolume.CreateRequest{Name: "taken"})
	if _, err := s.Clone(t.Context(), "data", "copy", nil, false, busy); !errdefs.IsConflict(err) || err.Error() != "clone data: volume is in use by running containers - [one]" {
		t.Errorf("in use: %v", err)
	}
	v, err := s.Clone(t.Context(), "data", "copy", map[string]string{"c": "d"}, true, busy)
	if err != nil || v.Name != "copy" || v.Options["o"] != "1" || v.Labels["c"] != "d" || v.Labels["a"] != "" {
		t.Errorf("%+v, %v", v, err)
	}
	for name, is := range map[string]func(error) bool{"taken": errdefs.IsConflict, "data": errdefs.IsConflict, "": errdefs.IsInvalidArgument} {
		if _, err := s.Clone(t.Context(), "data", name, nil, false, nobody); !is(err) {
			t.Errorf("to %q: %v", name, err)
		}
	}
	if _, err := s.Clone(t.Context(), "nosuch", "x", nil, false, nobody); !errdefs.IsNotFound(err) {
		t.Errorf("of none: %v", err)
	}
	d.fail = errors.New("full")
	if _, err := s.Clone(t.Context(), "data", "failed", nil, false, nobody); err == nil {
		t.Error("no error")
	}
	d.fail = nil
	s = again()
	if err := s.Reconcile(t.Context(), "", nil); err != nil || names(t, s, nil, unused) != "copy data taken" {
		t.Errorf("after a restart: %s, %v", names(t, s, nil, unused), err)
	}
}

func TestRename(t *testing.T) {
	s, d, again, _ := service(t)
	create(t, s, mobyvolume.CreateRequest{Name: "old", Labels: map[string]string{"a": "b"}})
	create(t, s, mobyvolume.CreateRequest{Name: "taken"})
	var told []Renamed
	moved := func(r Renamed) error { told = append(told, r); return nil }
	if _, err := s.Rename(t.Context(), "old", "new", busy, moved); !errdefs.IsConflict(err) {
		t.Errorf("in use: %v", err)
	}
	if _, err := s.Rename(t.Context(), "old", "taken", nobody, moved); !errdefs.IsConflict(err) {
		t.Errorf("to a name that is taken: %v", err)
	}
	d.fail = errdefs.ErrInvalidArgument
	if _, err := s.Rename(t.Context(), "old", "bad name", nobody, moved); !errdefs.IsInvalidArgument(err) {
		t.Errorf("to a bad name: %v", err)
	}
	d.fail = nil
	v, err := s.Rename(t.Context(), "old", "new", nobody, moved)
	if err != nil || v.Name != "new" || v.Mountpoint != "/place/new" || v.Labels["a"] != "b" {
		t.Errorf("%+v, %v", v, err)
	}
	if len(told) != 1 || told[0] != (Renamed{"old", "new", "/place/new"}) {
		t.Errorf("told %v", told)
	}
	for range 2 {
		if got := names(t, s, nil, unused); got != "new taken" {
			t.Errorf("there are %s", got)
		}
		s = again()
	}
}

// The core is killed at each step of a rename.
func TestRenamesThatWereCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		driver  string // what the driver calls it by then
		pending bool
		oldGone bool
		want    string
		told    int
	}{
		"before the driver":               {"old", true, false, "old", 0},
		"after the driver":                {"new", true, false, "new", 1},
		"before containers":               {"new", false, false, "new", 1},
		"after the old record's deletion": {"new", false, true, "new", 1},
	} {
		s, d, again, _ := service(t)
		create(t, s, mobyvolume.CreateRequest{Name: "old", Labels: map[string]string{"a": "b"}})
		r, _ := s.get("old")
		created := r.Created
		r.Name, r.RenamedFrom, r.Pending = "new", "old", c.pending
		if err := s.records.Put("new", r); err != nil {
			t.Fatal(err)
		}
		if c.oldGone {
			if err := s.records.Delete("old"); err != nil {
				t.Fatal(err)
			}
		}
		if c.driver == "new" {
			if _, err := d.Rename(t.Context(), "old", "new"); err != nil {
				t.Fatal(err)
			}
		}
		told := 0
		for range 2 { // the second start finds nothing to do
			s = again()
			if err := errors.Join(s.Reconcile(t.Context(), "", nil), s.FinishRenames(func(Renamed) error { told++; return nil })); err != nil {
				t.Fatal(err)
			}
			if got := names(t, s, nil, unused); got != c.want || told != c.told {
				t.Errorf("%s: %s, containers were told %d times", name, got, told)
			}
		}
		if r, _ := s.get(c.want); !r.Created.Equal(created) || r.Labels["a"] != "b" {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestADriverThatCannotResize(t *testing.T) {
	s, _, _, _ := service(t)
	create(t, s, mobyvolume.CreateRequest{Name: "data"})
	if _, err := s.Resize(t.Context(), "data", 1); !errdefs.IsNotImplemented(err) {
		t.Errorf("got %v", err)
	}
}
