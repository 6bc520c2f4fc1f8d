package container

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"go.etcd.io/bbolt"

	"github.com/davit-engine/davit/core/state"
)

func open(t *testing.T, root string) (*Store, *bbolt.DB) {
	t.Helper()
	db, err := state.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	s, err := NewStore(db)
	if err != nil {
		t.Fatal(err)
	}
	return s, db
}

// id is a whole ID that begins with a prefix.
func id(prefix string) string { return prefix + strings.Repeat("0", 64-len(prefix)) }

func add(t *testing.T, s *Store, r Record) *Container {
	t.Helper()
	if err := s.Reserve(r.Name, r.ID); err != nil {
		t.Fatal(err)
	}
	c, err := s.Add(r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFindByIDNameAndPrefix(t *testing.T) {
	s, _ := open(t, t.TempDir())
	for prefix, name := range map[string]string{"aa11": "web", "aa22": "db", "bb33": "aa1", "cc44": id("aa11")[:12] + "x"} {
		add(t, s, Record{ID: id(prefix), Name: name})
	}
	for ref, want := range map[string]string{
		id("aa11"): "aa11", "web": "aa11", "/web": "aa11", "aa11": "aa11", "aa11000000": "aa11", "/aa11": "aa11",
		"db": "aa22", "aa2": "aa22", "b": "bb33",
		// A name is what the user chose: it goes before a prefix.
		"aa1": "bb33",
	} {
		c, err := s.Find(ref)
		if err != nil || c.ID != id(want) {
			t.Errorf("%q finds %v, %v", ref, c, err)
		}
	}
}

func TestAnAmbiguousPrefixIsRefused(t *testing.T) {
	s, _ := open(t, t.TempDir())
	for _, prefix := range []string{"aa11", "aa22", "aa33"} {
		add(t, s, Record{ID: id(prefix), Name: "c" + prefix})
	}
	for _, ref := range []string{"aa", "/aa"} {
		_, err := s.Find(ref)
		if !errdefs.IsInvalidArgument(err) || err.Error() != "multiple IDs found with provided prefix: aa" {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

func TestAnUnknownContainerIsNotFound(t *testing.T) {
	s, _ := open(t, t.TempDir())
	add(t, s, Record{ID: id("aa11"), Name: "web"})
	// Neither part of a name nor of an ID's end will do, and nothing finds nothing.
	for _, ref := range []string{"nosuch", "we", "WEB", "000", "", "/", "//web", id("aa11") + "0"} {
		c, err := s.Find(ref)
		if !errdefs.IsNotFound(err) || err.Error() != "No such container: "+ref {
			t.Errorf("%q finds %v, %v", ref, c, err)
		}
	}
}

func TestAReservedNameIsNotAContainerYet(t *testing.T) {
	s, _ := open(t, t.TempDir())
	if err := s.Reserve("web", id("aa")); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Find("web"); !errdefs.IsNotFound(err) {
		t.Errorf("found %v, %v", c, err)
	}
}

func TestANameBelongsToOneContainer(t *testing.T) {
	s, _ := open(t, t.TempDir())
	first, second := id("aa"), id("bb")
	for range 2 { // again by its holder is no conflict
		if err := s.Reserve("web", first); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprintf(`Conflict. The container name "/web" is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.`, first)
	if err := s.Reserve("web", second); !errdefs.IsAlreadyExists(err) || err.Error() != want {
		t.Errorf("a second holder: %v", err)
	}
	s.Free("web", second) // it is not its to give
	if err := s.Reserve("web", second); !errdefs.IsAlreadyExists(err) {
		t.Errorf("after a stranger freed it: %v", err)
	}
	s.Free("web", first)
	if err := s.Reserve("web", second); err != nil {
		t.Errorf("after its holder freed it: %v", err)
	}
}

func TestOneOfManyGetsAName(t *testing.T) {
	s, _ := open(t, t.TempDir())
	var group sync.WaitGroup
	var mu sync.Mutex
	got := 0
	for i := range 32 {
		group.Go(func() {
			if s.Reserve("web", id(fmt.Sprintf("%02x", i))) == nil {
				mu.Lock()
				got++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if got != 1 {
		t.Errorf("%d containers have the name", got)
	}
}

func TestNamesAreCheckedAsByDocker(t *testing.T) {
	for _, name := range []string{"web", "0a", "a.b-c_D9", strings.Repeat("a", 300), RandomName()} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "a", ".a", "-a", "_a", "a b", "a/b", "ä1", "web\n", "a:b"} {
		err := CheckName(name)
		if want := "Invalid container name (" + name + "), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"; !errdefs.IsInvalidArgument(err) || err.Error() != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestIDsAreNotRepeated(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		fresh := NewID()
		if len(fresh) != 64 || strings.Trim(fresh, "0123456789abcdef") != "" || seen[fresh] {
			t.Errorf("ID %q", fresh)
		}
		seen[fresh] = true
	}
}

func TestAllAreListedTheYoungestFirst(t *testing.T) {
	s, _ := open(t, t.TempDir())
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
	for prefix, created := range map[string]time.Time{"aa": at(1), "bb": at(3), "cc": at(2), "dd": at(2)} {
		add(t, s, Record{ID: id(prefix), Name: "c" + prefix, Created: created})
	}
	var got []string
	for _, c := range s.All() {
		got = append(got, c.ID[:2])
	}
	if want := []string{"bb", "cc", "dd", "aa"}; !cmp.Equal(want, got) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func TestRecordsSurviveAReopenedDatabase(t *testing.T) {
	root := t.TempDir()
	s, db := open(t, root)
	want := Record{
		ID: id("aa"), Name: "web", Created: time.Unix(1, 2).UTC(), Image: "sha256:abc", Platform: "linux",
		Config:        &container.Config{Image: "alpine", Cmd: []string{"sh"}, Labels: map[string]string{"k": "v"}},
		HostConfig:    &container.HostConfig{NetworkMode: "front"},
		StorageDriver: "overlay", RuntimeDriver: "native", Snapshot: "davit-aa",
		Mounts:    []Mount{{MountPoint: container.MountPoint{Destination: "/data", Name: "data"}, Options: []string{"nosuid"}, Anonymous: true}},
		Endpoints: map[string]Endpoint{"front": {NetworkID: "n", EndpointID: "e", Request: &network.EndpointSettings{Aliases: []string{"www"}}}},
		Status:    Running, PID: 7, StartedAt: time.Unix(3, 0).UTC(), RestartCount: 2, Stopped: true,
	}
	c := add(t, s, want)
	gone := add(t, s, Record{ID: id("bb"), Name: "old"})
	if err := c.Update(func(r *Record) error { r.ExitCode = 42; return nil }); err != nil {
		t.Fatal(err)
	}
	want.ExitCode = 42
	if err := c.UpdateVolatile(func(r *Record) error { r.Error = "only in memory"; return nil }); err != nil {
		t.Fatal(err)
	}
	if got := c.Record().Error; got != "only in memory" {
		t.Errorf("error in memory %q", got)
	}
	if err := gone.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, root)
	if all := s.All(); len(all) != 1 {
		t.Errorf("%d containers", len(all))
	}
	again, err := s.Find("web")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, again.Record(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if err := s.Reserve("web", id("cc")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("the name is not reserved any more: %v", err)
	}
	if err := s.Reserve("old", id("cc")); err != nil {
		t.Errorf("the name of what was removed: %v", err)
	}
}

func TestACorruptRecordStopsTheStore(t *testing.T) {
	s, db := open(t, t.TempDir())
	add(t, s, Record{ID: id("aa"), Name: "web"})
	if err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("containers")).Put([]byte("broken"), []byte("{")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := NewStore(db); err == nil || !strings.Contains(err.Error(), "record broken in containers") {
		t.Errorf("a container is forgotten: %v", err)
	}
}

func TestAFailedUpdateChangesNothing(t *testing.T) {
	root := t.TempDir()
	s, db := open(t, root)
	c := add(t, s, Record{ID: id("aa"), Name: "web", Endpoints: map[string]Endpoint{"front": {}}, Mounts: []Mount{{Subpath: "a"}}})
	refusal := errors.New("no")
	err := c.Update(func(r *Record) error {
		r.Status = Running
		r.Mounts[0].Subpath = "b"
		delete(r.Endpoints, "front")
		return refusal
	})
	if !errors.Is(err, refusal) {
		t.Errorf("error %v", err)
	}
	if r := c.Record(); r.Status != "" || len(r.Endpoints) != 1 || r.Mounts[0].Subpath != "a" {
		t.Errorf("record %+v", r)
	}
	// A disk that fails is no reason to believe what it does not hold.
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(func(r *Record) error { r.Status = Running; return nil }); err == nil || c.Record().Status != "" {
		t.Errorf("status %q, %v", c.Record().Status, err)
	}
	if _, err := s.Add(Record{ID: id("bb")}); err == nil || len(s.All()) != 1 {
		t.Errorf("%d containers, %v", len(s.All()), err)
	}
	if err := c.Delete(); err == nil || c.Gone() {
		t.Errorf("gone is %v, %v", c.Gone(), err)
	}
}

// Readers hold copies while others change the container.
func TestACopyOfARecordDoesNotChange(t *testing.T) {
	s, _ := open(t, t.TempDir())
	c := add(t, s, Record{ID: id("aa"), Name: "web", Endpoints: map[string]Endpoint{"front": {NetworkID: "n"}}, Mounts: []Mount{{Subpath: "a"}}})
	before := c.Record()
	if err := c.Update(func(r *Record) error {
		r.Endpoints["front"], r.Endpoints["back"] = Endpoint{NetworkID: "m"}, Endpoint{}
		r.Mounts[0].Subpath = "b"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(before.Endpoints) != 1 || before.Endpoints["front"].NetworkID != "n" || before.Mounts[0].Subpath != "a" {
		t.Errorf("the copy is %+v", before)
	}
}
