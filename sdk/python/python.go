// Package python holds what a driver in Python uses beside what protoc makes of the
// protos.
package python

import "embed"

// Files are the Python modules.
//
//go:embed *.py
var Files embed.FS
