package main

import (
	"context"
	"io"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/moby/term"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func pullCommand(a *app) *cobra.Command {
	var platform, how string
	var quiet, all bool
	cmd := &cobra.Command{
		Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Short: "Download an image from a registry", Args: exactly(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			named, err := reference.ParseNormalizedNamed(args[0])
			switch {
			case err != nil:
				return &status{1, err.Error()}
			case all && !reference.IsNameOnly(named):
				return &status{1, "tag can't be used with --all-tags/-a"}
			case !all && reference.IsNameOnly(named):
				named = reference.TagNameOnly(named)
				if !quiet && how != progressJSON {
					a.say("Using default tag: latest")
				}
			}
			parsed, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			out := a.out
			if quiet {
				out = io.Discard
			}
			if err := a.pull(cmd.Context(), api, named.String(), all, parsed, out, how); err != nil {
				return err
			}
			if how != progressJSON || quiet {
				a.say(named.String())
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	cmd.Flags().BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	cmd.Flags().StringVar(&how, "progress", progressAuto, `Set how progress is shown ("auto", "json", "plain", "tty")`)
	return cmd
}

func (a *app) pull(ctx context.Context, api *client.Client, name string, all bool, platform *ocispec.Platform, out io.Writer, how string) error {
	o := client.ImagePullOptions{All: all}
	if platform != nil {
		o.Platforms = []ocispec.Platform{*platform}
	}
	auth, err := a.credentials(name)
	if err != nil {
		return err
	}
	o.RegistryAuth = auth
	body, err := api.ImagePull(ctx, name, o)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return showPull(body, out, how)
}

// display shows progress, in place on a terminal.
func display(body io.Reader, out io.Writer) error {
	fd, terminal := term.GetFdInfo(out)
	return jsonmessage.DisplayJSONMessagesStream(body, out, fd, terminal, nil)
}
