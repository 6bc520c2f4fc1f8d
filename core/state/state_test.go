package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
)

type record struct {
	Name   string
	Number int
	Tags   map[string]string
}

func open(t *testing.T, root string) *bbolt.DB {
	t.Helper()
	db, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func collection[T any](t *testing.T, db *bbolt.DB, name string) *Collection[T] {
	t.Helper()
	c, err := NewCollection[T](db, name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func all[T any](t *testing.T, c *Collection[T]) map[string]T {
	t.Helper()
	records, err := c.All()
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func put[T any](t *testing.T, c *Collection[T], key string, r T) {
	t.Helper()
	if err := c.Put(key, r); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsAreThereAfterReopening(t *testing.T) {
	root := t.TempDir()
	db := open(t, root)
	c := collection[record](t, db, "things")
	put(t, c, "a", record{Name: "first"})
	put(t, c, "a", record{Name: "second", Number: -7, Tags: map[string]string{"k": "v"}}) // replaces
	put(t, c, "key/with: ü", record{})
	put(t, c, "gone", record{})
	for range 2 { // what is not there is no error
		if err := c.Delete("gone"); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]record{"a": {Name: "second", Number: -7, Tags: map[string]string{"k": "v"}}, "key/with: ü": {}}
	if diff := cmp.Diff(want, all(t, c)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, all(t, collection[record](t, open(t, root), "things"))); diff != "" {
		t.Errorf("records after reopening (-want +got):\n%s", diff)
	}
}

func TestCollectionsAreApart(t *testing.T) {
	db := open(t, t.TempDir())
	first, second := collection[record](t, db, "first"), collection[int](t, db, "second")
	put(t, first, "key", record{Name: "a"})
	put(t, second, "key", 7)
	if err := first.Delete("key"); err != nil {
		t.Fatal(err)
	}
	if len(all(t, first)) != 0 || all(t, second)["key"] != 7 {
		t.Errorf("records %v and %v", all(t, first), all(t, second))
	}
	if len(all(t, collection[record](t, db, "new"))) != 0 {
		t.Error("a new collection is not empty")
	}
}

// Two engines on one root would each start the other's containers.
func TestASecondEngineIsRefused(t *testing.T) {
	root := t.TempDir()
	db := open(t, root)
	_, err := Open(root)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "another davitd uses "+filepath.Join(root, FileName)) {
		t.Errorf("error %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, root)
}

func TestTheDatabaseIsTheEnginesAlone(t *testing.T) {
	root := t.TempDir()
	open(t, root)
	info, err := os.Stat(filepath.Join(root, FileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: it holds the environment of every container", info.Mode(), err)
	}
}

func TestWhatCannotBeOpenedIsNamed(t *testing.T) {
	root := t.TempDir()
	_, err := Open(filepath.Join(root, "nosuch"))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "opening "+filepath.Join(root, "nosuch", FileName)) {
		t.Errorf("a root that is not there: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root, FileName), []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Open(root); err == nil || errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), FileName) {
		t.Errorf("a file that is no database: %v", err)
	}
}

func TestACorruptRecordIsReportedWithItsKey(t *testing.T) {
	for name, body := range map[string]string{"cut off": `{"Name":"a`, "empty": "", "of another type": `{"Name":1}`} {
		t.Run(name, func(t *testing.T) {
			db := open(t, t.TempDir())
			c := collection[record](t, db, "things")
			put(t, c, "good", record{Name: "a"})
			if err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("things")).Put([]byte("bad"), []byte(body)) }); err != nil {
				t.Fatal(err)
			}
			_, err := c.All()
			if err == nil || !strings.HasPrefix(err.Error(), "record bad in things: ") {
				t.Errorf("error %v", err)
			}
			// It can be mended or removed by its key.
			if err := c.Delete("bad"); err != nil {
				t.Fatal(err)
			}
			if len(all(t, c)) != 1 {
				t.Errorf("records %v", all(t, c))
			}
		})
	}
}

func TestWhatCannotBeWrittenIsAnError(t *testing.T) {
	db := open(t, t.TempDir())
	c := collection[func()](t, db, "things")
	var unsupported *json.UnsupportedTypeError
	if err := c.Put("a", func() {}); !errors.As(err, &unsupported) {
		t.Errorf("error %v", err)
	}
	numbers := collection[int](t, db, "numbers")
	if err := numbers.Put("", 1); err == nil {
		t.Error("a record without a key is written")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := numbers.Put("a", 1); err == nil {
		t.Error("a closed database takes records")
	}
	if _, err := numbers.All(); err == nil {
		t.Error("a closed database gives records")
	}
	if _, err := NewCollection[int](db, "more"); err == nil || !strings.Contains(err.Error(), "opening collection more") {
		t.Errorf("a collection in a closed database: %v", err)
	}
}

func TestManyMayWriteAtOnce(t *testing.T) {
	c := collection[int](t, open(t, t.TempDir()), "numbers")
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for _, n := range []int{i, i + 100} {
				if err := c.Put(fmt.Sprint(i), n); err != nil {
					t.Error(err)
				}
				if _, err := c.All(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for i, records := 0, all(t, c); i < 16; i++ {
		if records[fmt.Sprint(i)] != i+100 {
			t.Errorf("record %d is %d", i, records[fmt.Sprint(i)])
		}
	}
}
