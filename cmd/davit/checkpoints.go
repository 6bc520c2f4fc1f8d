package main

import (
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func checkpointCommands(a *app) []*cobra.Command {
	return []*cobra.Command{checkpointCreate(a), checkpointList(a), checkpointRemove(a)}
}

func checkpointCreate(a *app) *cobra.Command {
	var o client.CheckpointCreateOptions
	var leave bool
	cmd := &cobra.Command{
		Use: "create [OPTIONS] CONTAINER CHECKPOINT", Short: "Create a checkpoint from a running container", Args: exactly(2),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			o.CheckpointID, o.Exit = args[1], !leave
			if _, err := api.CheckpointCreate(cmd.Context(), args[0], o); err != nil {
				return err
			}
			a.say(args[1])
			return nil
		}),
	}
	cmd.Flags().BoolVar(&leave, "leave-running", false, "Leave the container running after checkpoint")
	cmd.Flags().StringVar(&o.CheckpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	return cmd
}

func checkpointList(a *app) *cobra.Command {
	var o client.CheckpointListOptions
	cmd := &cobra.Command{
		Use: "ls [OPTIONS] CONTAINER", Aliases: []string{"list"}, Short: "List checkpoints for a container", Args: exactly(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			list, err := api.CheckpointList(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			a.say("CHECKPOINT NAME")
			for _, item := range list.Items {
				a.say(item.Name)
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&o.CheckpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	return cmd
}

func checkpointRemove(a *app) *cobra.Command {
	var o client.CheckpointRemoveOptions
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] CONTAINER CHECKPOINT", Aliases: []string{"remove"}, Short: "Remove a checkpoint", Args: exactly(2),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			o.CheckpointID = args[1]
			_, err := api.CheckpointRemove(cmd.Context(), args[0], o)
			return err
		}),
	}
	cmd.Flags().StringVar(&o.CheckpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	return cmd
}
