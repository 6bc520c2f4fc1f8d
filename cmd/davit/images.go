package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"github.com/moby/term"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// imageCommands are those at the top; imageSubcommands those below "image".
func imageCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		imagesCommand(a), renamed(imageRemove(a), "rmi"), pullCommand(a), pushCommand(a), tagCommand(a), historyCommand(a), loadCommand(a), saveCommand(a), importCommand(a),
		loginCommand(a), logoutCommand(a), searchCommand(a),
	}
}

func imageSubcommands(a *app) []*cobra.Command {
	inspect := &cobra.Command{Use: "inspect [OPTIONS] IMAGE [IMAGE...]", Short: "Display detailed information on one or more images", Args: atLeast(1)}
	platform := inspect.Flags().String("platform", "", `Inspect a specific platform of the multi-platform image, formatted as "os[/arch[/variant]]"`)
	format := inspect.Flags().StringP("format", "f", "", "Format output using a custom template: 'json' or a Go template")
	inspect.RunE = a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
		parsed, err := parsePlatform(*platform)
		if err != nil {
			return err
		}
		return inspectAll(a.out, *format, args, func(name string) (any, json.RawMessage, error) {
			return inspectImage(cmd.Context(), api, name, parsed)
		})
	})
	return []*cobra.Command{
		renamed(imagesCommand(a), "ls", "list"), renamed(imageRemove(a), "rm", "remove"), pullCommand(a), pushCommand(a), tagCommand(a), historyCommand(a),
		loadCommand(a), saveCommand(a), importCommand(a), inspect, imageTreeCommand(a), imageDiffCommand(a),
	}
}

func inspectImage(ctx context.Context, api *client.Client, name string, platform *ocispec.Platform) (any, json.RawMessage, error) {
	var raw bytes.Buffer
	options := []client.ImageInspectOption{client.ImageInspectWithRawResponse(&raw)}
	if platform != nil {
		options = append(options, client.ImageInspectWithPlatform(platform))
	}
	r, err := api.ImageInspect(ctx, name, options...)
	return r.InspectResponse, raw.Bytes(), err
}

func imagesCommand(a *app) *cobra.Command {
	var all, quiet, full, digests bool
	var format string
	var filters []string
	cmd := &cobra.Command{
		Use: "images [OPTIONS] [REPOSITORY[:TAG]]", Short: "List images", Args: between(0, 1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			if len(args) == 1 {
				filters = append(filters, "reference="+args[0])
			}
			parsed, err := filterFlags(filters)
			if err != nil {
				return err
			}
			list, err := api.ImageList(cmd.Context(), client.ImageListOptions{All: all, Filters: parsed})
			if err != nil {
				return err
			}
			var rows []row
			for _, img := range list.Items {
				rows = append(rows, imageRows(img, full)...)
			}
			l := listing{format: format, columns: []column{
				{"Repository", "REPOSITORY"}, {"Tag", "TAG"}, {"ID", "IMAGE ID"}, {"CreatedSince", "CREATED"}, {"Size", "SIZE"},
			}, all: []column{{"Digest", "DIGEST"}, {"CreatedAt", "CREATED AT"}}}
			if digests {
				l.columns = append(l.columns[:2], append([]column{{"Digest", "DIGEST"}}, l.columns[2:]...)...)
			}
			if quiet {
				l.quiet = "ID"
			}
			return l.print(a.out, rows)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&all, "all", "a", false, "Show all images (default hides intermediate images)")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	flags.BoolVar(&full, "no-trunc", false, "Don't truncate output")
	flags.BoolVar(&digests, "digests", false, "Show digests")
	flags.StringVar(&format, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template")
	flags.StringArrayVarP(&filters, "filter", "f", nil, "Filter output based on conditions provided")
	return cmd
}

// imageRows is one row for each name of an image.
func imageRows(img image.Summary, full bool) []row {
	id := img.ID
	if !full {
		id = short(id)
	}
	created := time.Unix(img.Created, 0)
	digest := map[string]string{}
	for _, name := range img.RepoDigests {
		repository, value, _ := strings.Cut(name, "@")
		digest[repository] = value
	}
	make := func(repository, tag string) row {
		d := digest[repository]
		if d == "" {
			d = "<none>"
		}
		return row{
			"Repository": repository, "Tag": tag, "Digest": d, "ID": id, "CreatedSince": ago(created),
			"CreatedAt": created.Format("2006-01-02 15:04:05 -0700 MST"), "Size": units.HumanSizeWithPrecision(float64(img.Size), 3),
			"Containers": "N/A", "SharedSize": "N/A", "UniqueSize": "N/A", "VirtualSize": units.HumanSizeWithPrecision(float64(img.Size), 4),
		}
	}
	var rows []row
	for _, name := range img.RepoTags {
		colon := strings.LastIndexByte(name, ':')
		rows = append(rows, make(name[:colon], name[colon+1:]))
		delete(digest, name[:colon]+"@") // shown with its tag
	}
	if len(rows) == 0 {
		for repository := range digest {
			rows = append(rows, make(repository, "<none>"))
		}
	}
	if len(rows) == 0 {
		rows = append(rows, make("<none>", "<none>"))
	}
	return rows
}

func imageRemove(a *app) *cobra.Command {
	var o client.ImageRemoveOptions
	var noPrune bool
	cmd := &cobra.Command{
		Use: "rmi [OPTIONS] IMAGE [IMAGE...]", Short: "Remove one or more images", Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.PruneChildren = !noPrune
			return a.each(cmd, args, func(ctx context.Context, api *client.Client, name string) error {
				result, err := api.ImageRemove(ctx, name, o)
				if o.Force && isNotFound(err) {
					fmt.Fprintln(a.err, err)
					return nil
				}
				a.deleted(result.Items)
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Force removal of the image")
	cmd.Flags().BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	return cmd
}

func (a *app) deleted(items []image.DeleteResponse) {
	for _, item := range items {
		if item.Untagged != "" {
			fmt.Fprintln(a.out, "Untagged:", item.Untagged)
		}
		if item.Deleted != "" {
			fmt.Fprintln(a.out, "Deleted:", item.Deleted)
		}
	}
}

func tagCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", Args: exactly(2),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			_, err := api.ImageTag(cmd.Context(), client.ImageTagOptions{Source: args[0], Target: args[1]})
			return err
		}),
	}
}

func historyCommand(a *app) *cobra.Command {
	var quiet, full bool
	var format, platform string
	human := true
	cmd := &cobra.Command{
		Use: "history [OPTIONS] IMAGE", Short: "Show the history of an image", Args: exactly(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			var options []client.ImageHistoryOption
			if parsed, err := parsePlatform(platform); err != nil {
				return err
			} else if parsed != nil {
				options = append(options, client.ImageHistoryWithPlatform(*parsed))
			}
			result, err := api.ImageHistory(cmd.Context(), args[0], options...)
			if err != nil {
				return err
			}
			var rows []row
			for _, step := range result.Items {
				created, by := time.Unix(step.Created, 0), strings.ReplaceAll(step.CreatedBy, "\t", " ")
				if !full && len([]rune(by)) > 45 {
					by = string([]rune(by)[:44]) + "…"
				}
				r := row{"ID": step.ID, "CreatedBy": by, "Comment": step.Comment, "Size": fmt.Sprint(step.Size), "CreatedSince": created.Format(time.RFC3339), "CreatedAt": created.Format(time.RFC3339)}
				if strings.HasPrefix(step.ID, "sha256:") {
					r["ID"] = shown(step.ID, full)
				}
				if human {
					r["Size"], r["CreatedSince"] = units.HumanSizeWithPrecision(float64(step.Size), 3), ago(created)
				}
				rows = append(rows, r)
			}
			l := listing{format: format, columns: []column{{"ID", "IMAGE"}, {"CreatedSince", "CREATED"}, {"CreatedBy", "CREATED BY"}, {"Size", "SIZE"}, {"Comment", "COMMENT"}}}
			if quiet {
				l.quiet = "ID"
			}
			return l.print(a.out, rows)
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	cmd.Flags().BoolVar(&full, "no-trunc", false, "Don't truncate output")
	cmd.Flags().StringVar(&platform, "platform", "", `Show history for the given platform, formatted as "os[/arch[/variant]]"`)
	cmd.Flags().BoolVarP(&human, "human", "H", true, "Print sizes and dates in human readable format")
	cmd.Flags().StringVar(&format, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template")
	return cmd
}

func loadCommand(a *app) *cobra.Command {
	var input, platform string
	var quiet bool
	cmd := &cobra.Command{
		Use: "load [OPTIONS]", Short: "Load an image from a tar archive or STDIN", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			from := a.in
			if input != "" {
				f, err := os.Open(input)
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				from = f
			} else if term.IsTerminal(a.in.Fd()) {
				return &status{1, "requested load from stdin, but stdin is empty"}
			}
			options := []client.ImageLoadOption{client.ImageLoadWithQuiet(quiet)}
			if parsed, err := parsePlatform(platform); err != nil {
				return err
			} else if parsed != nil {
				options = append(options, client.ImageLoadWithPlatforms(*parsed))
			}
			body, err := api.ImageLoad(cmd.Context(), from, options...)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			return display(body, a.out)
		}),
	}
	cmd.Flags().StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	cmd.Flags().StringVar(&platform, "platform", "", `Load only the given platform, formatted as "os[/arch[/variant]]"`)
	return cmd
}

func saveCommand(a *app) *cobra.Command {
	var output, platform string
	cmd := &cobra.Command{
		Use: "save [OPTIONS] IMAGE [IMAGE...]", Short: "Save one or more images to a tar archive (streamed to STDOUT by default)", Args: atLeast(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			var options []client.ImageSaveOption
			if parsed, err := parsePlatform(platform); err != nil {
				return err
			} else if parsed != nil {
				options = append(options, client.ImageSaveWithPlatforms(*parsed))
			}
			body, err := api.ImageSave(cmd.Context(), args, options...)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			return a.writeOutput(output, body)
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().StringVar(&platform, "platform", "", `Save only the given platform, formatted as "os[/arch[/variant]]"`)
	return cmd
}

func importCommand(a *app) *cobra.Command {
	var o client.ImageImportOptions
	var platform string
	cmd := &cobra.Command{
		Use: "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]", Short: "Import the contents from a tarball to create a filesystem image", Args: between(1, 2),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			source := client.ImageImportSource{SourceName: "-", Source: a.in}
			switch {
			case args[0] == "-":
			case strings.HasPrefix(args[0], "http://"), strings.HasPrefix(args[0], "https://"):
				source = client.ImageImportSource{SourceName: args[0]}
			default:
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				source.Source = f
			}
			parsed, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			if parsed != nil {
				o.Platform = *parsed
			}
			name := ""
			if len(args) == 2 {
				name = args[1]
			}
			body, err := api.ImageImport(cmd.Context(), source, name, o)
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			return display(body, a.out)
		}),
	}
	cmd.Flags().StringArrayVarP(&o.Changes, "change", "c", nil, "Apply Dockerfile instruction to the created image")
	cmd.Flags().StringVarP(&o.Message, "message", "m", "", "Set commit message for imported image")
	cmd.Flags().StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	return cmd
}

func imagePrune(a *app) *cobra.Command {
	var p pruneFlags
	var all bool
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused images", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			what := "This will remove all dangling images."
			if all {
				what = "This will remove all images without at least one container associated to them."
			}
			filters, ok, err := p.ask(a, what)
			if err != nil || !ok {
				return err
			}
			filters["dangling"] = map[string]bool{fmt.Sprint(!all): true}
			result, err := api.ImagePrune(cmd.Context(), client.ImagePruneOptions{Filters: filters})
			if err != nil {
				return err
			}
			if len(result.Report.ImagesDeleted) > 0 {
				fmt.Fprintln(a.out, "Deleted Images:")
				for _, item := range result.Report.ImagesDeleted {
					if item.Untagged != "" {
						fmt.Fprintln(a.out, "untagged:", item.Untagged)
					}
					if item.Deleted != "" {
						fmt.Fprintln(a.out, "deleted:", item.Deleted)
					}
				}
				fmt.Fprintln(a.out)
			}
			a.pruned("", nil, result.Report.SpaceReclaimed)
			return nil
		}),
	}
	p.add(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	return cmd
}
