package monitor

import (
	"bytes"
	"encoding/binary"
	"os"
	"syscall"
)

// PackedSuffix ends the name of a rotated log file that is compressed.
const PackedSuffix = ".gz"

// PackingSuffix ends the name while it is being compressed.
const PackingSuffix = PackedSuffix + ".tmp"

// packedField begins a field of a gzip header's extra data (RFC 1952, 2.3.1.1):
// two letters that name it, then the size of what follows.
var packedField = []byte{'D', 'V', 24, 0}

// LogID tells a log file from others, also from one that has its inode after it.
// It is a rotated file's that is not written any more, and stays in the header of
// its compressed form: who was reading the one knows the other by it.
type LogID struct {
	Inode    uint64
	Modified int64 // Unix time, in nanoseconds
	Size     int64
}

// NewLogID is the LogID of a file.
func NewLogID(f *os.File) (LogID, error) {
	info, err := f.Stat()
	if err != nil {
		return LogID{}, err
	}
	return LogID{Inode: info.Sys().(*syscall.Stat_t).Ino, Modified: info.ModTime().UnixNano(), Size: info.Size()}, nil
}

// Extra is the LogID as extra data of a gzip header.
func (id LogID) Extra() []byte {
	p := binary.LittleEndian.AppendUint64(bytes.Clone(packedField), id.Inode)
	p = binary.LittleEndian.AppendUint64(p, uint64(id.Modified))
	return binary.LittleEndian.AppendUint64(p, uint64(id.Size))
}

// ParseLogID reads what Extra wrote; ok is false for the extra data of others.
func ParseLogID(extra []byte) (id LogID, ok bool) {
	p, ok := bytes.CutPrefix(extra, packedField)
	if !ok || len(p) < 24 {
		return LogID{}, false
	}
	number := binary.LittleEndian.Uint64
	return LogID{Inode: number(p), Modified: int64(number(p[8:])), Size: int64(number(p[16:]))}, true
}
