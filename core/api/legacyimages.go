package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
)

// legacyImage shapes an image's description as the client's API version has it.
func legacyImage(r *http.Request, response image.InspectResponse) (any, error) {
	if before(r, "1.48") {
		response.Descriptor = nil
	}
	if !before(r, "1.50") {
		return response, nil
	}
	if response.GraphDriver == nil {
		response.GraphDriver = &storage.DriverData{}
	}
	fields, err := object(response)
	if err != nil {
		return nil, err
	}
	// An image made elsewhere has no parent here, and no engine is known to have made it.
	added := map[string]any{"Parent": "", "DockerVersion": "", "Comment": response.Comment, "Author": response.Author}
	if before(r, "1.45") {
		added["Container"], added["ContainerConfig"] = "", legacyConfig(map[string]json.RawMessage{})
	}
	if before(r, "1.44") {
		added["VirtualSize"] = response.Size
		if response.Created == "" {
			added["Created"] = time.Time{}.Format(time.RFC3339Nano)
		}
	}
	if response.Config != nil {
		config, err := object(response.Config)
		if err != nil {
			return nil, err
		}
		added["Config"] = legacyConfig(config)
	}
	for key, value := range added {
		if fields[key], err = encode(value); err != nil {
			return nil, err
		}
	}
	return fields, nil
}

// legacyConfig adds what was a container's and never an image's, and the fields
// that are now left out when they are empty.
func legacyConfig(config map[string]json.RawMessage) map[string]json.RawMessage {
	for _, key := range []string{"Hostname", "Domainname", "User", "Image", "WorkingDir"} {
		setDefault(config, key, `""`)
	}
	for _, key := range []string{"AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"} {
		setDefault(config, key, "false")
	}
	for _, key := range []string{"Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels"} {
		setDefault(config, key, "null")
	}
	return config
}

func setDefault(fields map[string]json.RawMessage, key, value string) {
	if _, ok := fields[key]; !ok {
		fields[key] = json.RawMessage(value)
	}
}

func object(v any) (map[string]json.RawMessage, error) {
	body, err := encode(v)
	if err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	return fields, json.Unmarshal(body, &fields)
}

// legacySummary is an image of a list with the field that API versions before 1.44
// have.
type legacySummary struct {
	image.Summary
	VirtualSize int64
}

// legacyImages shapes a list of images as the client's API version has it.
func legacyImages(r *http.Request, list []image.Summary) any {
	for i := range list {
		list[i].Containers = -1 // only counted for the disk usage
		if before(r, "1.48") {
			list[i].Descriptor = nil
		}
		if before(r, "1.43") && len(list[i].RepoTags)+len(list[i].RepoDigests) == 0 {
			list[i].RepoTags, list[i].RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
	}
	if !before(r, "1.44") {
		return list
	}
	legacy := make([]legacySummary, 0, len(list))
	for _, summary := range list {
		legacy = append(legacy, legacySummary{summary, summary.Size})
	}
	return legacy
}
