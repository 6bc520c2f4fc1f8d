package projquota

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of linux/dqblk_xfs.h, which every filesystem with quotas answers.
const (
	getQuota = 'X'<<8 + 3 // Q_XGETQUOTA
	setLimit = 'X'<<8 + 4 // Q_XSETQLIM
	getState = 'X'<<8 + 8 // Q_XGETQSTATV

	projectQuotas   = 2 // PRJQUOTA
	projectKind     = 2 // FS_PROJ_QUOTA
	projectEnforced = 1 << 5
	softField       = 1 << 2 // FS_DQ_BSOFT
	hardField       = 1 << 3 // FS_DQ_BHARD
	block           = 512    // bytes that limits are counted in
)

// quota is struct fs_disk_quota.
type quota struct {
	version, flags       int8
	fields               uint16
	id                   uint32
	hardLimit, softLimit uint64
	inodeHard, inodeSoft uint64
	used, inodes         uint64
	_                    [56]byte // timers, warnings, realtime blocks
}

// quotactl is quotactl_fd(2): it needs no path of a block device.
func (c *Control) quotactl(command, project uint32, arg unsafe.Pointer) error {
	root, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, root.Fd(), uintptr(command<<8|projectQuotas), uintptr(project), uintptr(arg), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// attributes is struct fsxattr.
type attributes struct {
	flags      uint32
	extent     uint32
	extents    uint32
	projectID  uint32
	cowExtents uint32
	_          [8]byte
}

// The calls FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR of ioctl(2).
const (
	readAttributes  = 0x801c581f
	writeAttributes = 0x401c5820
)

// inherit is FS_XFLAG_PROJINHERIT: what is made below has the project, too.
const inherit = 0x200

func getAttributes(f *os.File) (attributes, error) {
	var a attributes
	return a, attributesCall(f, readAttributes, &a)
}

func setAttributes(f *os.File, a attributes) error { return attributesCall(f, writeAttributes, &a) }

func attributesCall(f *os.File, request uintptr, a *attributes) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a))); errno != 0 {
		return fmt.Errorf("project of %s: %w", f.Name(), errno)
	}
	return nil
}
