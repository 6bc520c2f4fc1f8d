package snapdir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/sdk/storage"
)

// RecordName is the file in a snapshot's directory that says what it is.
const RecordName = "snapshot.json"

// save writes a snapshot's record, durably where it must survive a power cut.
func (s *Store) save(of *Snapshot, durable bool) error {
	body, err := json.Marshal(of)
	if err != nil {
		return err
	}
	path := filepath.Join(s.Dir(of.Number), RecordName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if durable && err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil || !durable {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// SyncTree makes a tree durable: one call for its filesystem instead of one for each
// file.
func SyncTree(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// load rebuilds the index from the records. What a crash left of a creation goes to
// the trash.
func (s *Store) load() error {
	found, err := os.ReadDir(s.path("s"))
	if err != nil {
		return err
	}
	for _, dir := range found {
		n, err := strconv.Atoi(dir.Name())
		if err != nil {
			continue
		}
		s.last = max(s.last, n)
		body, err := os.ReadFile(filepath.Join(s.Dir(n), RecordName))
		e := &entry{}
		if err == nil {
			err = json.Unmarshal(body, &e.Snapshot)
		}
		if errors.Is(err, fs.ErrNotExist) || err != nil && len(body) == 0 {
			if err := os.Rename(s.Dir(n), s.path("trash", dir.Name())); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("record of snapshot %d: %w", n, err)
		}
		s.byName[e.Name] = e
		if e.Kind == storage.KindCommitted { // the commit may have been cut off after its record
			if err := s.content.Settle(s.Dir(n)); err != nil {
				return err
			}
		}
	}
	trash, err := os.ReadDir(s.path("trash"))
	if err != nil {
		return err
	}
	for _, dir := range trash { // numbers are not used twice while their trash is there
		if n, err := strconv.Atoi(dir.Name()); err == nil {
			s.last = max(s.last, n)
		}
	}
	for _, e := range s.byName {
		if p := s.byName[e.Parent]; p != nil {
			p.children++
		}
		for _, n := range e.Chain { // of one that is lost, too, while somebody stands on it
			s.last = max(s.last, n)
		}
	}
	s.rejoin()
	return nil
}
