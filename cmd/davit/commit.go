package main

import (
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func commitCommand(a *app) *cobra.Command {
	var o client.ContainerCommitOptions
	pause := true
	cmd := &cobra.Command{
		Use: "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", Short: "Create a new image from a container's changes", Args: between(1, 2),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			if len(args) == 2 {
				o.Reference = args[1]
			}
			o.NoPause = !pause
			result, err := api.ContainerCommit(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			a.say(result.ID)
			return nil
		}),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	flags.StringVarP(&o.Comment, "message", "m", "", "Commit message")
	flags.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	flags.StringArrayVarP(&o.Changes, "change", "c", nil, "Apply Dockerfile instruction to the created image")
	return cmd
}
