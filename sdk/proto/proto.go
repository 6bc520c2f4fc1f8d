// Package proto holds the protos of davit's plugin protocol as files. The Go code that
// is made of them is in the packages below.
package proto

import "embed"

// Files are the protos, by their paths for imports.
//
//go:embed davit/*/v1/*.proto
var Files embed.FS
