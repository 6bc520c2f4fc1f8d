package image

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/image/layers"
)

// Diff compares the files and the configurations of two images. The layers that both
// begin with are read once, and contents by their hashes: memory grows with the number
// of paths, not with their sizes.
func (s *Store) Diff(ctx context.Context, from, to string) (layers.Difference, error) {
	before, beforeManifest, held, done, err := s.forReading(ctx, from)
	if err != nil {
		return layers.Difference{}, err
	}
	defer done()
	after, afterManifest, heldToo, doneToo, err := s.forReading(ctx, to)
	if err != nil {
		return layers.Difference{}, err
	}
	defer doneToo()
	d := layers.Difference{From: comparedOf(before), To: comparedOf(after), Files: []layers.File{}, Config: configChanges(before, after)}
	ids, otherIDs := before.Config.RootFS.DiffIDs, after.Config.RootFS.DiffIDs
	for d.SharedLayers < min(len(ids), len(otherIDs)) && ids[d.SharedLayers] == otherIDs[d.SharedLayers] {
		d.SharedLayers++
	}
	if d.SharedLayers == len(ids) && len(ids) == len(otherIDs) {
		return d, nil
	}
	ignore := func(layers.Change) error { return nil }
	a := &layers.Tree{Hash: true}
	for i := range d.SharedLayers {
		if err := s.follow(held, a, beforeManifest.Layers[i], ids[i], ignore); err != nil {
			return d, err
		}
	}
	b := a.Clone()
	for i := d.SharedLayers; i < len(ids); i++ {
		if err := s.follow(held, a, beforeManifest.Layers[i], ids[i], ignore); err != nil {
			return d, err
		}
	}
	for i := d.SharedLayers; i < len(otherIDs); i++ {
		if err := s.follow(heldToo, b, afterManifest.Layers[i], otherIDs[i], ignore); err != nil {
			return d, err
		}
	}
	return d, layers.Compare(a, b, func(c layers.Change) error {
		f := layers.FileOf(c)
		d.Files = append(d.Files, f)
		switch c.Kind {
		case layers.Added:
			d.Added.Add(f.Size)
		case layers.Changed:
			d.Changed.Add(f.Size)
		case layers.Removed:
			d.Removed.Add(f.Size)
		}
		return nil
	})
}

func comparedOf(img *Image) layers.Compared {
	return layers.Compared{
		ID: img.ID.String(), Names: notNil(img.RepoTags), Platform: platforms.Format(platforms.Normalize(img.Config.Platform)),
		Size: img.Size, Layers: len(img.Config.RootFS.DiffIDs),
	}
}

// configChanges compares what containers get of two images, and how they present
// themselves.
func configChanges(before, after *Image) []layers.ConfigChange {
	a, b := fieldsOf(before.Config), fieldsOf(after.Config)
	list := []layers.ConfigChange{}
	for _, field := range slices.Sorted(maps.Keys(union(a, b))) {
		if text(a[field]) != text(b[field]) {
			list = append(list, layers.ConfigChange{Field: field, Before: a[field], After: b[field]})
		}
	}
	return list
}

func text(v any) string {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(body)
}

// fieldsOf lays a configuration out flat, without what is empty.
func fieldsOf(c dockerspec.DockerOCIImage) map[string]any {
	fields := map[string]any{}
	set := func(key string, value any) {
		if t := text(value); t != `""` && t != "null" && t != "[]" {
			fields[key] = value
		}
	}
	set("Architecture", c.Architecture)
	set("Variant", c.Variant)
	set("Os", c.OS)
	set("Author", c.Author)
	set("User", c.Config.User)
	set("WorkingDir", c.Config.WorkingDir)
	set("StopSignal", c.Config.StopSignal)
	set("Cmd", c.Config.Cmd)
	set("Entrypoint", c.Config.Entrypoint)
	set("Shell", c.Config.Shell)
	set("OnBuild", c.Config.OnBuild)
	set("Healthcheck", c.Config.Healthcheck)
	for _, entry := range c.Config.Env {
		key, value, _ := strings.Cut(entry, "=")
		fields["Env."+key] = value
	}
	for key, value := range c.Config.Labels {
		fields["Labels."+key] = value
	}
	for key := range c.Config.ExposedPorts {
		fields["ExposedPorts."+key] = true
	}
	for key := range c.Config.Volumes {
		fields["Volumes."+key] = true
	}
	return fields
}
