package image

// InUse answers a container that uses the image with the given ID (empty if
// there is none) and whether that container runs.
type InUse func(imageID string) (containerID string, running bool)

// ImportOptions describe a root filesystem that becomes an image.
type ImportOptions struct {
	Repo, Tag, Message, Platform string
	Source                       string   // URL to fetch it from; empty where the caller has it
	Changes                      []string // Dockerfile instructions: CMD, ENV, ...
}
