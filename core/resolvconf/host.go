package resolvconf

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// behindStub has the servers that systemd-resolved asks itself.
const behindStub = "/run/systemd/resolve/resolv.conf"

// stub is systemd-resolved's own server, for programs of the host.
var stub = netip.AddrFrom4([4]byte{127, 0, 0, 53})

// HostFile is the host's configuration, as it is at any time. Asking is cheap: the
// file is only read again if it is another, or changed.
type HostFile struct {
	main, behind cached
}

// NewHostFile is the one at a path.
func NewHostFile(path string) *HostFile {
	return &HostFile{main: cached{path: path}, behind: cached{path: behindStub}}
}

// Read answers the configuration and the file it comes from. Where only
// systemd-resolved's stub is given it is that behind the stub. A file that is not
// there says nothing.
func (h *HostFile) Read() (c Config, path string, err error) {
	if c, err = h.main.read(); err != nil {
		return Config{}, h.main.path, err
	}
	if slices.Equal(c.Servers, []netip.Addr{stub}) {
		if real, err := h.behind.read(); err == nil && len(real.Servers) > 0 {
			return real, h.behind.path, nil
		}
	}
	return c, h.main.path, nil
}

// coarse is more than the steps in which filesystems count time: a file that was
// read so soon after its last change may have changed again without a sign.
const coarse = time.Second

// cached is a file that was read.
type cached struct {
	path string

	mu      sync.Mutex
	version version
	sure    bool // that another content would have another version
	config  Config
}

// version tells one content of a file from another.
type version struct {
	device, inode uint64
	size          int64
	written       time.Time
	changed       syscall.Timespec
}

func (c *cached) read() (Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil
	}
	if err != nil {
		return Config{}, err
	}
	now := version{size: info.Size(), written: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		now.device, now.inode, now.changed = stat.Dev, stat.Ino, stat.Ctim
	}
	if c.sure && now == c.version {
		return c.config, nil
	}
	began := time.Now()
	body, err := os.ReadFile(c.path)
	if err != nil {
		return Config{}, err
	}
	c.config, c.version = Parse(body), now
	c.sure = began.Sub(info.ModTime()) > coarse && began.Sub(time.Unix(now.changed.Unix())) > coarse
	return c.config, nil
}
