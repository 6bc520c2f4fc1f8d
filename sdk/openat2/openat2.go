// Package openat2 opens paths that must not lead anywhere else (openat2(2)).
//
// Only x/sys may be imported here: see package monitor.
package openat2

import "golang.org/x/sys/unix"

// attempts is more than renames can happen to come between in a row.
const attempts = 128

// Open is openat2 for paths with "..": a rename anywhere on the machine makes the
// kernel unsure where they lead, and it asks to be asked again.
func Open(dir int, path string, how *unix.OpenHow) (fd int, err error) {
	for range attempts {
		if fd, err = unix.Openat2(dir, path, how); err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return fd, err
}
