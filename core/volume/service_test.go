package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	mobyvolume "github.com/moby/moby/api/types/volume"
	"go.etcd.io/bbolt"

	"github.com/davit-engine/davit/core/filter"
	"github.com/davit-engine/davit/core/state"
	"github.com/davit-engine/davit/sdk/mount"
	"github.com/davit-engine/davit/sdk/volume"
)

// driver is a volume driver in memory.
type driver struct {
	volume.Claims
	mu   sync.Mutex
	all  map[string]volume.Volume
	fail error // of the next calls
	told []volume.Claim
}

func (d *driver) Create(_ context.Context, name string, options, labels map[string]string) (volume.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return volume.Volume{}, d.fail
	}
	v, ok := d.all[name]
	if !ok {
		v = volume.Volume{Name: name, Mountpoint: "/place/" + name, Options: options, Labels: labels}
		d.all[name] = v
		v.Fresh = true
	}
	return v, nil
}

func (d *driver) Get(_ context.Context, name string) (volume.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.all[name]
	if !ok {
		return v, errdefs.ErrNotFound
	}
	return v, d.fail
}

func (d *driver) List(context.Context) ([]volume.Volume, error) {
	return nil, errdefs.ErrNotImplemented
}

func (d *driver) Remove(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	if _, ok := d.all[name]; !ok {
		return errdefs.ErrNotFound
	}
	delete(d.all, name)
	return nil
}

func (d *driver) Mount(_ context.Context, name, consumer string) (mount.Mount, error) {
	d.Claim(name, consumer)
	return mount.Mount{Type: "bind", Source: "/place/" + name}, nil
}

func (d *driver) Usage(context.Context, string) (volume.Usage, error) {
	return volume.Usage{Size: 7}, nil
}

func (d *driver) Reconcile(_ context.Context, claims []volume.Claim) error {
	d.told = claims
	return nil
}

// service makes a service with one driver; again opens the same state.
func service(t *testing.T) (s *Service, d *driver, again func() *Service, said *[]events.Message) {
	t.Helper()
	dir := t.TempDir()
	d, said = &driver{all: map[string]volume.Volume{}}, &[]events.Message{}
	var db *bbolt.DB
	t.Cleanup(func() { _ = db.Close() })
	number := 0
	again = func() *Service {
		t.Helper()
		if db != nil {
			_ = db.Close()
		}
		var err error
		if db, err = state.Open(dir); err != nil {
			t.Fatal(err)
		}
		s, err := New(Options{
			DB: db, DefaultDriver: "local", NewName: func() string { number++; return fmt.Sprintf("random%d", number) },
			Driver: func(name string) (volume.Driver, error) {
				if name == "local" || name == "" || name == "other" {
					return d, nil
				}
				return nil, fmt.Errorf("volume driver %q not found: %w", name, errdefs.ErrNotFound)
			},
			Emit: func(m events.Message) { *said = append(*said, m) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return again(), d, again, said
}

func nobody(string) []string { return nil }

func create(t *testing.T, s *Service, req mobyvolume.CreateRequest) mobyvolume.Volume {
	t.Helper()
	v, err := s.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func names(t *testing.T, s *Service, f filter.Args, users func(string) int) string {
	t.Helper()
	list, err := s.List(t.Context(), f, users)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range list.Volumes {
		names = append(names, v.Name)
	}
	return strings.Join(names, " ")
}

func unused(string) int { return 0 }

func TestCreateAnswersTheExistingVolume(t *testing.T) {
	s, _, _, said := service(t)
	create(t, s, mobyvolume.CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	if v := create(t, s, mobyvolume.CreateRequest{Name: "data", DriverOpts: map[string]string{"x": "y"}}); v.Labels["a"] != "b" || v.Options != nil {
		t.Errorf("again: %+v", v)
	}
	if _, err := s.Create(t.Context(), mobyvolume.CreateRequest{Name: "data", Driver: "other"}); !errdefs.IsConflict(err) {
		t.Errorf("with another driver: %v", err)
	}
	if _, err := s.Create(t.Context(), mobyvolume.CreateRequest{Name: "x", Driver: "nosuch"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("with no driver: %v", err)
	}
	if len(*said) != 1 || (*said)[0].Action != events.ActionCreate {
		t.Errorf("events %+v", *said)
	}
}

// The core is killed between its intent and the driver's answer, before and after
// the driver did it.
func TestCreationsThatWereCutOff(t *testing.T) {
	s, d, again, _ := service(t)
	for _, name := range []string{"made", "not-made", "anonymous"} {
		r := Record{Name: name, Driver: "local", Pending: true}
		if name == "anonymous" {
			r.Anonymous, r.Owner = true, "container"
		}
		if err := s.records.Put(name, r); err != nil {
			t.Fatal(err)
		}
	}
	d.all["made"] = volume.Volume{Name: "made", Mountpoint: "/place/made"}
	d.all["anonymous"] = volume.Volume{Name: "anonymous", Mountpoint: "/place/anonymous"}
	s = again()
	d.fail = errdefs.ErrUnavailable
	if err := s.Reconcile(t.Context(), "", nil); err == nil || names(t, s, nil, unused) != "anonymous made" {
		t.Errorf("a driver that is away: %v, %s", err, names(t, s, nil, unused))
	}
	d.fail = nil
	if err := s.Reconcile(t.Context(), "", nil); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Inspect(t.Context(), "made"); err != nil || v.Mountpoint != "/place/made" {
		t.Errorf("%+v, %v", v, err)
	}
	if err := s.Sweep(t.Context(), func(string) bool { return false }, nobody); err != nil {
		t.Fatal(err)
	}
	if got := names(t, s, nil, unused); got != "made" || len(d.all) != 1 {
		t.Errorf("left are %s, in the driver %v", got, d.all)
	}
	if got := names(t, again(), nil, unused); got != "made" {
		t.Errorf("after another start: %s", got)
	}
}

func TestACreationThatFailsLeavesNoRecord(t *testing.T) {
	s, d, again, _ := service(t)
	d.fail = errdefs.ErrInvalidArgument.WithMessage("no")
	if _, err := s.Create(t.Context(), mobyvolume.CreateRequest{Name: "data"}); err == nil || err.Error() != "create data: no" {
		t.Errorf("got %v", err)
	}
	// What the driver did of this nobody knows.
	d.fail = errdefs.ErrUnavailable
	if _, err := s.Create(t.Context(), mobyvolume.CreateRequest{Name: "perhaps"}); err == nil {
		t.Error("no error")
	}
	s = again()
	if got := names(t, s, nil, unused); got != "perhaps" {
		t.Errorf("left: %s", got)
	}
	d.fail = nil
	create(t, s, mobyvolume.CreateRequest{Name: "perhaps"})
}

func TestRemoveNamesTheUsers(t *testing.T) {
	s, d, _, _ := service(t)
	create(t, s, mobyvolume.CreateRequest{Name: "data"})
	err := s.Remove(t.Context(), "data", true, func(string) []string { return []string{"one", "two"} })
	if want := "remove data: volume is in use - [one, two]"; !errdefs.IsConflict(err) || err.Error() != want {
		t.Errorf("got %v", err)
	}
	// A container that is being made is no record yet.
	if _, _, err := s.Ensure(t.Context(), mobyvolume.CreateRequest{Name: "data"}, "three", false); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "data", false, nobody); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "[three]") {
		t.Errorf("got %v", err)
	}
	s.Settled("three")
	if err := s.Remove(t.Context(), "data", false, nobody); err != nil || len(d.all) != 0 {
		t.Errorf("%v, left %v", err, d.all)
	}
	if err := s.Remove(t.Context(), "data", false, nobody); !errdefs.IsNotFound(err) || err.Error() != "get data: no such volume" {
		t.Errorf("got %v", err)
	}
	if err := s.Remove(t.Context(), "data", true, nobody); err != nil {
		t.Errorf("with force: %v", err)
	}
}

func TestForceForgetsWhatADriverCannotRemove(t *testing.T) {
	s, d, _, _ := service(t)
	create(t, s, mobyvolume.CreateRequest{Name: "data"})
	d.fail = errors.New("broken")
	for _, force := range []bool{false, true} {
		if err := s.Remove(t.Context(), "data", force, nobody); err == nil || err.Error() != "remove data: broken" {
			t.Errorf("force %t: %v", force, err)
		}
		if _, known := s.get("data"); known == force {
			t.Errorf("force %t: still known: %t", force, known)
		}
	}
	d.fail = nil
	// The driver has lost it.
	create(t, s, mobyvolume.CreateRequest{Name: "lost"})
	delete(d.all, "lost")
	if err := s.Remove(t.Context(), "lost", false, nobody); err != nil {
		t.Error(err)
	}
}

func TestFilters(t *testing.T) {
	s, _, _, _ := service(t)
	create(t, s, mobyvolume.CreateRequest{Name: "used", Labels: map[string]string{"a": "b"}})
	create(t, s, mobyvolume.CreateRequest{Name: "idle", Driver: "other"})
	create(t, s, mobyvolume.CreateRequest{})
	users := func(name string) int { return strings.Count(name, "used") }
	for _, c := range []struct {
		f    filter.Args
		want string
	}{
		{nil, "idle random1 used"}, {filter.Args{"dangling": {"true"}}, "idle random1"}, {filter.Args{"dangling": {"0"}}, "used"},
		{filter.Args{"driver": {"local"}}, "random1 used"}, {filter.Args{"driver": {"local", "other"}}, "idle random1 used"},
		{filter.Args{"label": {"a"}}, "used"}, {filter.Args{"label": {"a=c"}}, ""}, {filter.Args{"label": {"com.docker.volume.anonymous"}}, "random1"},
		{filter.Args{"name": {"se"}}, "used"}, {filter.Args{"name": {"^i"}}, "idle"},
	} {
		if got := names(t, s, c.f, users); got != c.want {
			t.Errorf("%v: %q, want %q", c.f, got, c.want)
		}
	}
	for _, bad := range []filter.Args{{"colour": {"red"}}, {"dangling": {"perhaps"}}} {
		if _, err := s.List(t.Context(), bad, users); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestPrune(t *testing.T) {
	for _, c := range []struct {
		f    filter.Args
		want string // what is left
	}{
		{nil, "foreign labelled named used"}, {filter.Args{"all": {"1"}}, "foreign used"}, {filter.Args{"all": {"true"}, "label": {"a=b"}}, "foreign named random1 used"},
		{filter.Args{"all": {"true"}, "label!": {"a"}}, "foreign labelled used"}, {filter.Args{"label": {"a"}}, "foreign labelled named random1 used"},
	} {
		s, _, _, said := service(t)
		for _, req := range []mobyvolume.CreateRequest{{Name: "named"}, {Name: "used"}, {Name: "labelled", Labels: map[string]string{"a": "b"}}, {Name: "foreign", Driver: "other"}, {}} {
			create(t, s, req)
		}
		report, err := s.Prune(t.Context(), c.f, func(name string) []string {
			if name == "used" {
				return []string{"container"}
			}
			return nil
		})
		if got := names(t, s, nil, unused); err != nil || got != c.want {
			t.Errorf("%v leaves %q, %v, want %q", c.f, got, err, c.want)
		}
		if report.VolumesDeleted == nil || report.SpaceReclaimed != uint64(7*len(report.VolumesDeleted)) {
			t.Errorf("%v: report %+v", c.f, report)
		}
		if last := (*said)[len(*said)-1]; last.Action != events.ActionPrune {
			t.Errorf("the last event is %+v", last)
		}
	}
}

// The engine tells a driver who uses volumes: running containers, and what is
// just happening.
func TestReconcileKnowsWhatIsBorrowed(t *testing.T) {
	s, d, _, _ := service(t)
	create(t, s, mobyvolume.CreateRequest{Name: "data"})
	_, giveBack, err := s.Borrow(t.Context(), "data")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reconcile(t.Context(), "local", []volume.Claim{{Volume: "data", Consumer: "one"}, {Volume: "gone", Consumer: "one"}}); err != nil || len(d.told) != 2 {
		t.Errorf("%v, %v", d.told, err)
	}
	if err := giveBack(); err != nil || d.InUse("data") != nil {
		t.Errorf("%v, %v", err, d.InUse("data"))
	}
	if err := s.Reconcile(t.Context(), "", nil); err != nil || len(d.told) != 0 {
		t.Errorf("%v, %v", d.told, err)
	}
}

// Many make, use and remove one name at once: nobody gets what is being removed.
func TestCreateAndRemoveAtOnce(t *testing.T) {
	s, d, _, _ := service(t)
	s.Emit = func(events.Message) {}
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			id := fmt.Sprint("container", worker)
			for range 25 {
				v, _, err := s.Ensure(t.Context(), mobyvolume.CreateRequest{Name: "data"}, id, false)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := d.Get(t.Context(), v.Name); err != nil {
					t.Errorf("a reserved volume is gone: %v", err)
				}
				s.Settled(id)
				if err := s.Remove(t.Context(), "data", false, nobody); err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func TestAFillWaitsForItsTurn(t *testing.T) {
	s, _, _, _ := service(t)
	create(t, s, mobyvolume.CreateRequest{Name: "data"})
	inside := make(chan struct{})
	end := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.Fill(t.Context(), "data", func(mount.Mount) error { close(inside); <-end; return nil })
	}()
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Fill(ctx, "data", func(mount.Mount) error { t.Error("two at once"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(end)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Fill(t.Context(), "data", func(mount.Mount) error { return nil }); err != nil {
		t.Error(err)
	}
}
