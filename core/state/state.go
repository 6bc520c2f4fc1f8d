// Package state is the engine's database: named collections of JSON records in
// one bbolt file. A write is durable when it returns.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// FileName is the database's name below the engine's root.
const FileName = "davit.db"

// Open opens the database below root. Another engine that has it open is
// ErrFailedPrecondition.
func Open(root string) (*bbolt.DB, error) {
	path := filepath.Join(root, FileName)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("another davitd uses %s: stop it, or give this one a root of its own: %w", path, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return db, nil
}

// Collection is a set of records of one type by key.
type Collection[T any] struct {
	db     *bbolt.DB
	bucket []byte
}

// NewCollection opens, and if need be makes, a collection.
func NewCollection[T any](db *bbolt.DB, name string) (*Collection[T], error) {
	err := db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists([]byte(name))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening collection %s: %w", name, err)
	}
	return &Collection[T]{db, []byte(name)}, nil
}

// Put writes a record.
func (c *Collection[T]) Put(key string, record T) error {
	body, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return c.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(c.bucket).Put([]byte(key), body) })
}

// Delete removes a record; one that is not there is no error.
func (c *Collection[T]) Delete(key string) error {
	return c.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(c.bucket).Delete([]byte(key)) })
}

// All reads every record. One that cannot be decoded is an error naming it:
// forgetting a container would leak it.
func (c *Collection[T]) All() (map[string]T, error) {
	all := map[string]T{}
	err := c.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(c.bucket).ForEach(func(key, body []byte) error {
			var record T
			if err := json.Unmarshal(body, &record); err != nil {
				return fmt.Errorf("record %s in %s: %w", key, c.bucket, err)
			}
			all[string(key)] = record
			return nil
		})
	})
	return all, err
}
