package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// The engine's answers about the layers of images (GET /davit/images/NAME/tree and
// /davit/images/diff), which Docker's API does not know.
type (
	imageTree struct {
		ID, Platform             string
		Names                    []string
		Size, Compressed, Wasted int64
		WastedFiles              int
		Layers                   []imageLayer
	}
	imageLayer struct {
		Digest, DiffID, MediaType string
		Created                   *time.Time `json:",omitempty"`
		CreatedBy, Comment        string
		Size, Compressed          int64
		Added, Changed, Removed   pathCount
		Wasted                    int64
		SharedWith                []string
		Files                     []pathChange `json:",omitempty"`
	}
	pathCount struct {
		Paths int
		Bytes int64
	}
	pathChange struct {
		Kind, Path, Type string
		Size, Before     int64
		Differences      []string `json:",omitempty"`
	}
	comparedImage struct {
		ID, Platform string
		Names        []string
		Size         int64
		Layers       int
	}
	imageDifference struct {
		From, To                comparedImage
		SharedLayers            int
		Added, Changed, Removed pathCount
		Files                   []pathChange
		Config                  []struct {
			Field         string
			Before, After json.RawMessage
		}
	}
)

// own asks for something below /davit and answers it decoded, and as it came.
func (a *app) own(ctx context.Context, path string, into any) (json.RawMessage, error) {
	body, err := a.answer(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return body, json.Unmarshal(body, into)
}

func imageTreeCommand(a *app) *cobra.Command {
	var files bool
	var format string
	cmd := &cobra.Command{
		Use: "tree [OPTIONS] IMAGE [IMAGE...]", Short: "Show the layers of images: their sizes, what each changes and what is wasted", Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			get := func(name string) (any, json.RawMessage, error) {
				path := "/davit/images/" + (&url.URL{Path: name}).EscapedPath() + "/tree"
				if files {
					path += "?files=1"
				}
				var tree imageTree
				raw, err := a.own(cmd.Context(), path, &tree)
				return tree, raw, err
			}
			if format != "" {
				return inspectAll(a.out, format, args, get)
			}
			for _, name := range args {
				tree, _, err := get(name)
				if err != nil {
					return err
				}
				printTree(a.out, name, tree.(imageTree)) //nolint:forcetypeassert // of get
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&files, "files", false, "List every path that a layer changes")
	cmd.Flags().StringVar(&format, "format", "", "Format output using a custom template: 'json' or a Go template")
	return cmd
}

func printTree(out io.Writer, name string, t imageTree) {
	fmt.Fprintf(out, "%s  %s  %s\n", name, short(t.ID), t.Platform)
	fmt.Fprintf(out, "%d layer%s, %s in files, %s stored, %s wasted at %d path%s\n", len(t.Layers), plural(len(t.Layers)), size(t.Size), size(t.Compressed), size(t.Wasted), t.WastedFiles, plural(t.WastedFiles))
	for i, layer := range t.Layers {
		branch, stem := "├─", "│ "
		if i == len(t.Layers)-1 {
			branch, stem = "└─", "  "
		}
		by := []rune(strings.Join(strings.Fields(layer.CreatedBy), " "))
		if len(by) > 60 {
			by = append(by[:59], '…')
		}
		line := fmt.Sprintf("%s %s  %8s  +%d ~%d -%d  %s", branch, short(layer.DiffID), size(layer.Size), layer.Added.Paths, layer.Changed.Paths, layer.Removed.Paths, string(by))
		fmt.Fprintln(out, strings.TrimRight(line, " "))
		if layer.Wasted > 0 {
			fmt.Fprintf(out, "%s   wastes %s of the layers before\n", stem, size(layer.Wasted))
		}
		if len(layer.SharedWith) > 0 {
			fmt.Fprintf(out, "%s   shared with %s\n", stem, strings.Join(layer.SharedWith, ", "))
		}
		for _, f := range layer.Files {
			fmt.Fprintf(out, "%s   %s\n", stem, f)
		}
	}
}

func size(bytes int64) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }

// String is one line, as docker diff begins it.
func (f pathChange) String() string {
	switch f.Kind {
	case "added":
		return strings.TrimRight("A "+f.Path+"  "+f.bytes(f.Size), " ")
	case "removed":
		return strings.TrimRight("D "+f.Path+"  "+f.bytes(f.Before), " ")
	}
	line := "C " + f.Path
	if f.Size != f.Before {
		line += "  " + size(f.Before) + " → " + size(f.Size)
	}
	return line + "  " + strings.Join(f.Differences, ", ")
}

func (f pathChange) bytes(n int64) string {
	if f.Type != "file" {
		return ""
	}
	return size(n)
}

func imageDiffCommand(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "diff [OPTIONS] IMAGE IMAGE", Short: "Show in which files and settings two images differ", Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d imageDifference
			raw, err := a.own(cmd.Context(), "/davit/images/diff?"+url.Values{"from": {args[0]}, "to": {args[1]}}.Encode(), &d)
			if err != nil {
				return err
			}
			switch format {
			case "":
				printDifference(a.out, d)
				return nil
			case "json":
				_, err := fmt.Fprintln(a.out, strings.TrimSpace(string(raw)))
				return err
			}
			return inspectOne(a.out, unescape(format), d, raw)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "Format output using a custom template: 'json' or a Go template")
	return cmd
}

func printDifference(out io.Writer, d imageDifference) {
	for _, f := range d.Files {
		fmt.Fprintln(out, f)
	}
	for _, c := range d.Config {
		fmt.Fprintf(out, "%s: %s → %s\n", c.Field, setting(c.Before), setting(c.After))
	}
	fmt.Fprintf(out, "%d added (%s), %d changed (%s), %d removed (%s), %d of the configuration; %d layer%s shared\n",
		d.Added.Paths, size(d.Added.Bytes), d.Changed.Paths, size(d.Changed.Bytes), d.Removed.Paths, size(d.Removed.Bytes), len(d.Config), d.SharedLayers, plural(d.SharedLayers))
}

func setting(v json.RawMessage) string {
	if len(v) == 0 || string(v) == "null" {
		return "none"
	}
	return string(v)
}
