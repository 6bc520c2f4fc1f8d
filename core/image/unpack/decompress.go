package unpack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/klauspost/compress/zstd"
	docker "github.com/moby/go-archive/compression"
)

// maxWindow is how far back a zstd frame may refer, which is memory that its decoder
// takes: what zstd itself allows by default.
const maxWindow = 128 << 20

// The magic of a tar archive, and where it is.
const (
	tarMagic       = "ustar"
	tarMagicOffset = 257
)

// decompress finds out an archive's compression and undoes it. gzip may have several
// members, zstd several frames and skippable ones.
func decompress(in io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(in, 64<<10)
	head, err := buffered.Peek(tarMagicOffset + len(tarMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the head of the archive: %w", err)
	}
	if compression.DetectCompression(head) == compression.Zstd {
		frames, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return frames.IOReadCloser(), nil
	}
	// A plain archive may begin with a name that looks like another's magic ("BZh").
	plain := len(head) > tarMagicOffset && bytes.HasPrefix(head[tarMagicOffset:], []byte(tarMagic))
	if kind := docker.Detect(head); !plain && (kind == docker.Bzip2 || kind == docker.Xz) {
		return docker.DecompressStream(buffered)
	}
	return compression.DecompressStream(buffered)
}
