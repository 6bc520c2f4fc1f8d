package blobs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// lockTimeout is how long another process may still have the database open.
const lockTimeout = 5 * time.Second

// openDatabase opens a database and reads all of it: what is damaged is found now, and
// not in the middle of an operation. Where it cannot be written it is opened for
// reading.
func openDatabase(path string) (db Database, readOnly bool, err error) {
	// Reading behind the end of a file that is mapped to memory is a fault of the
	// memory, and bbolt panics over pages that make no sense.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var file *os.File
	defer func() {
		if found := recover(); found != nil {
			// bbolt cannot be asked to close it any more, and its mapping keeps the lock.
			db, err = nil, damaged(path, errors.Join(fmt.Errorf("%v", found), unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close()))
		}
	}()
	options := bbolt.Options{Timeout: lockTimeout, OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}}
	bolt, err := bbolt.Open(path, 0o600, &options)
	if errors.Is(err, syscall.EROFS) {
		options.ReadOnly, readOnly = true, true
		bolt, err = bbolt.Open(path, 0o600, &options)
	}
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, false, fmt.Errorf("the image database %s is in use by another process: %w", path, errdefs.ErrUnavailable)
	case readOnly && errors.Is(err, fs.ErrNotExist):
		return nil, false, fmt.Errorf("making the image database %s: %w", path, syscall.EROFS)
	case errors.As(err, new(*fs.PathError)), errors.As(err, new(syscall.Errno)):
		return nil, false, fmt.Errorf("opening the image database: %w", err)
	case err != nil: // what bbolt says of the content
		return nil, false, damaged(path, err)
	}
	if err := bolt.View(readAll); err != nil {
		return nil, false, damaged(path, errors.Join(err, bolt.Close()))
	}
	if readOnly {
		return unwritable{bolt, path}, true, nil
	}
	return bolt, false, nil
}

// damaged says what is to be done about a database that cannot be read.
func damaged(path string, err error) error {
	return fmt.Errorf("the image database %s is damaged (%w): nothing of it was changed. It has the names of images; containers do not need it. "+
		"Put a copy of it from a backup in its place, or move it away and pull or load the images again: of blobs that are here nothing is fetched: %w", path, err, errdefs.ErrDataLoss)
}

// readAll visits every key.
func readAll(tx *bbolt.Tx) error {
	return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error { return readBucket(bucket, 0) })
}

// maxDepth is more than metadata's buckets have levels: in a damaged file a bucket may
// be in itself.
const maxDepth = 16

func readBucket(bucket *bbolt.Bucket, depth int) error {
	if depth > maxDepth {
		return errors.New("its buckets have no end")
	}
	return bucket.ForEach(func(key, value []byte) error {
		if value != nil {
			return nil
		}
		inner := bucket.Bucket(key)
		if inner == nil {
			return fmt.Errorf("bucket %q cannot be read", key)
		}
		return readBucket(inner, depth+1)
	})
}

// unwritable is a database on a file system that is mounted read-only.
type unwritable struct {
	*bbolt.DB
	path string
}

// Update fails.
func (u unwritable) Update(func(*bbolt.Tx) error) error {
	return fmt.Errorf("the image store cannot be changed: %w", &os.PathError{Op: "write", Path: u.path, Err: syscall.EROFS})
}
