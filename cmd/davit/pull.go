package main

import (
	"context"
	"io"
	"strings"

	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/moby/term"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func pullCommand(a *app) *cobra.Command {
	var platform string
	var quiet, all bool
	cmd := &cobra.Command{
		Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Short: "Download an image from a registry", Args: exactly(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			if all {
				return &status{1, "pulling all tags of a repository is not supported: name the tag"}
			}
			parsed, err := parsePlatform(platform)
			if err != nil {
				return err
			}
			out := a.out
			if quiet {
				out = io.Discard
			}
			if err := a.pull(cmd.Context(), api, args[0], parsed, out); err != nil {
				return err
			}
			a.say(fullName(args[0]))
			return nil
		}),
	}
	cmd.Flags().StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	cmd.Flags().BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	return cmd
}

// fullName is what Docker prints at the end of a pull.
func fullName(name string) string {
	first, _, nested := strings.Cut(name, "/")
	if !strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ":") && !strings.Contains(name, "@") {
		name += ":latest"
	}
	switch {
	case nested && (strings.ContainsAny(first, ".:") || first == "localhost"):
		return name
	case nested:
		return "docker.io/" + name
	}
	return "docker.io/library/" + name
}

func (a *app) pull(ctx context.Context, api *client.Client, name string, platform *ocispec.Platform, out io.Writer) error {
	var o client.ImagePullOptions
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
	return display(body, out)
}

// display shows progress, in place on a terminal.
func display(body io.Reader, out io.Writer) error {
	fd, terminal := term.GetFdInfo(out)
	return jsonmessage.DisplayJSONMessagesStream(body, out, fd, terminal, nil)
}
