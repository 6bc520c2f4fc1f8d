package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// remoteManifest is the engine's answer about an image of a registry (GET
// /davit/distribution/NAME/manifest).
type remoteManifest struct {
	registry.DistributionInspect
	Raw []byte
}

func (a *app) manifest(ctx context.Context, name string, insecure bool) (m remoteManifest, err error) {
	auth, err := a.credentials(name)
	if err != nil {
		return m, err
	}
	path := "/davit/distribution/" + (&url.URL{Path: name}).EscapedPath() + "/manifest"
	if insecure {
		path += "?insecure=1"
	}
	body, err := a.answer(ctx, http.MethodGet, path, map[string]string{registry.AuthHeader: auth})
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(body, &m)
}

func manifestCommands(a *app) []*cobra.Command {
	var insecure, verbose bool
	inspect := &cobra.Command{
		Use: "inspect [OPTIONS] [MANIFEST_LIST] MANIFEST", Short: "Display an image manifest, or manifest list", Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[len(args)-1]
			m, err := a.manifest(cmd.Context(), name, insecure)
			if err != nil {
				return err
			}
			if len(args) == 2 { // one manifest of a list
				list, err := a.manifest(cmd.Context(), args[0], insecure)
				if err != nil {
					return err
				}
				if !lists(list, m.Descriptor.Digest) {
					return &status{1, fmt.Sprintf("%s is not a manifest of %s", name, args[0])}
				}
			}
			if !verbose {
				return a.indented(m.Raw)
			}
			shown, err := a.verbose(cmd.Context(), name, m, insecure)
			if err != nil {
				return err
			}
			body, err := json.Marshal(shown)
			if err != nil {
				return err
			}
			return a.indented(body)
		},
	}
	inspect.Flags().BoolVar(&insecure, "insecure", false, "Allow communication with an insecure registry")
	inspect.Flags().BoolVarP(&verbose, "verbose", "v", false, "Output additional info including layers and platform")
	return []*cobra.Command{inspect}
}

// indented prints JSON as Docker's manifest command does.
func (a *app) indented(body []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, body, "", "\t"); err != nil {
		return fmt.Errorf("the registry's manifest is not JSON: %w", err)
	}
	_, err := fmt.Fprintln(a.out, b.String())
	return err
}

// verboseManifest is one image in Docker's verbose form.
type verboseManifest struct {
	Ref              string
	Descriptor       ocispec.Descriptor
	Raw              []byte
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

// verbose describes an image, or all of a list.
func (a *app) verbose(ctx context.Context, name string, m remoteManifest, insecure bool) (any, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, err
	}
	named = reference.TagNameOnly(named)
	index := indexOf(m)
	if index == nil {
		if len(m.Platforms) > 0 {
			m.Descriptor.Platform = &m.Platforms[0]
		}
		return verboseOf(named.String(), m), nil
	}
	list := []verboseManifest{}
	for _, d := range index.Manifests {
		ref, err := reference.WithDigest(reference.TrimNamed(named), d.Digest)
		if err != nil {
			return nil, err
		}
		one, err := a.manifest(ctx, ref.String(), insecure)
		if err != nil {
			return nil, err
		}
		one.Descriptor.Platform = d.Platform
		full := named.String() + "@" + d.Digest.String()
		list = append(list, verboseOf(full, one))
	}
	return list, nil
}

func verboseOf(ref string, m remoteManifest) verboseManifest {
	v := verboseManifest{Ref: ref, Descriptor: m.Descriptor, Raw: m.Raw}
	if m.Descriptor.MediaType == ocispec.MediaTypeImageManifest {
		v.OCIManifest = m.Raw
	} else {
		v.SchemaV2Manifest = m.Raw
	}
	return v
}

// indexOf is what a list lists; nil for a manifest.
func indexOf(m remoteManifest) *ocispec.Index {
	var index ocispec.Index
	if json.Unmarshal(m.Raw, &index) != nil || index.Manifests == nil {
		return nil
	}
	return &index
}

func lists(m remoteManifest, wanted digest.Digest) bool {
	index := indexOf(m)
	if index == nil {
		return false
	}
	for _, d := range index.Manifests {
		if d.Digest == wanted {
			return true
		}
	}
	return false
}

// refusedBy is what the engine says of a request that it does not serve.
func refusedBy(response *http.Response) error {
	var answer struct{ Message string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Message == "" {
		return fmt.Errorf("the engine does not know the request: %s. Is it davitd?", response.Status)
	}
	return fmt.Errorf("Error response from daemon: %s", answer.Message)
}
