// Package backend holds the words in which the API server speaks with the
// engine, so that neither has to import the other's package for them.
package backend

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/davit-engine/davit/core/filter"
)

// Progress receives the lines of a long operation.
type Progress func(jsonstream.Message) error

// Session is an attached terminal or set of streams.
type Session interface {
	// Terminal says whether the output is raw (true) or multiplexed in Docker's
	// stdcopy frames.
	Terminal() bool
	// Run copies between the client and the process until the process's output
	// ends, the client goes away or the detach keys are typed. in may be nil.
	Run(ctx context.Context, in io.Reader, out io.Writer) error
	// Close gives the session up without running it.
	Close() error
}

// LogStream is a container's log.
type LogStream interface {
	// Terminal says whether WriteTo writes raw bytes or stdcopy frames.
	Terminal() bool
	Copy(ctx context.Context, out io.Writer) error
}

// StartOptions say how to start.
type StartOptions struct {
	Checkpoint    string // its name; empty: a new process
	CheckpointDir string // that it is in; empty: the container's own
}

// StopOptions say how to stop.
type StopOptions struct {
	Signal  string // empty: the container's
	Timeout *int   // seconds; nil: the container's; negative: wait forever
}

// ContainerListOptions select containers.
type ContainerListOptions struct {
	All     bool
	Size    bool
	Limit   int
	Filters filter.Args
}

// ContainerRemoveOptions say what goes with a container.
type ContainerRemoveOptions struct {
	Volumes, Links, Force bool
}

// LogsOptions select log lines.
type LogsOptions struct {
	Stdout, Stderr, Follow, Timestamps, Details bool
	Since, Until                                time.Time
	Tail                                        int // lines from the end; negative: all
}

// AttachOptions select streams.
type AttachOptions struct {
	Stdin, Stdout, Stderr, Logs, Stream bool
	DetachKeys                          string
}

// ExtractOptions say how an archive is unpacked into a container.
type ExtractOptions struct {
	NoOverwriteDirNonDir bool
	CopyUIDGID           bool
}

// ImageListOptions select images.
type ImageListOptions struct {
	All, SharedSize, Digests bool
	Filters                  filter.Args
}

// CommitOptions describe the image that a container becomes.
type CommitOptions struct {
	Repo, Tag, Author, Comment string
	Changes                    []string          // Dockerfile instructions
	Config                     *container.Config // what the user sets of it; nil for nothing
	Pause                      bool
}

// ImageImportOptions describe an imported root filesystem.
type ImageImportOptions struct {
	Repo, Tag, Message, Platform string
	Source                       string   // URL; empty for what the client sends
	Changes                      []string // Dockerfile instructions
}
