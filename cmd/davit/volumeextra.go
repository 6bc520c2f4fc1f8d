package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// What davit does with volumes and Docker does not.

func volumeClone(a *app) *cobra.Command {
	var labels []string
	var force bool
	cmd := &cobra.Command{
		Use: "clone [OPTIONS] SOURCE VOLUME", Short: "Make a volume with the data of another one", Args: exactly(2),
		RunE: a.with(func(cmd *cobra.Command, _ *client.Client, args []string) error {
			return a.askVolume(cmd.Context(), args[0], "clone", map[string]any{"Name": args[1], "Labels": pairs(labels), "Force": force})
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Clone a volume that running containers use")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "Set metadata for the new volume")
	return cmd
}

func volumeRename(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rename VOLUME NEW_NAME", Short: "Give a volume another name", Args: exactly(2),
		RunE: a.with(func(cmd *cobra.Command, _ *client.Client, args []string) error {
			return a.askVolume(cmd.Context(), args[0], "rename", map[string]any{"Name": args[1]})
		}),
	}
}

func volumeResize(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "resize VOLUME SIZE", Short: "Limit the size of a volume (0: no limit)", Args: exactly(2),
		RunE: a.with(func(cmd *cobra.Command, _ *client.Client, args []string) error {
			size, err := units.RAMInBytes(args[1])
			if err != nil {
				return err
			}
			return a.askVolume(cmd.Context(), args[0], "resize", map[string]any{"Size": size})
		}),
	}
}

// askVolume asks for one of them and prints the volume's name.
func (a *app) askVolume(ctx context.Context, name, what string, request map[string]any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	response, err := a.send(ctx, http.MethodPost, "/davit/volumes/"+url.PathEscape(name)+"/"+what, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		volume.Volume
		Message string `json:"message"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("the engine at %s does not %s volumes: %s", a.address(), what, response.Status)
	}
	if response.StatusCode >= http.StatusBadRequest {
		return errors.New("Error response from daemon: " + answer.Message)
	}
	a.say(answer.Name)
	return nil
}
