package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// pluginVersion is one side of the engine's answer to an upgrade.
type pluginVersion struct {
	Version, SHA256 string
	PID             int
}

func (v pluginVersion) String() string {
	return fmt.Sprintf("version %s (%.12s, process %d)", v.Version, v.SHA256, v.PID)
}

func pluginUpgrade(a *app) *cobra.Command {
	var all, force bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "upgrade [OPTIONS] PLUGIN [PLUGIN...]",
		Short: "Replace the processes of driver plugins by what is installed now, under running containers",
		Long: `Replace the processes of driver plugins by what is installed now, under running containers.

The new process is started beside the old one. Calls wait while it takes over. If it
does not start, lacks what the old one can do, or does not find all that the old one
has, the old executable serves on.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return &status{1, "davit plugin upgrade requires the names of plugins, or --all"}
			}
			if all {
				list, _, err := a.plugins(cmd.Context())
				if err != nil {
					return err
				}
				for _, p := range list {
					if p.State == "ready" {
						names = append(names, p.Name)
					}
				}
			}
			query := url.Values{"force": {strconv.FormatBool(force)}}
			if timeout > 0 {
				query.Set("timeout", strconv.FormatFloat(timeout.Seconds(), 'f', -1, 64))
			}
			var failed error
			for _, name := range names {
				failed = errors.Join(failed, a.upgradePlugin(cmd.Context(), name, query))
			}
			return failed
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Upgrade every plugin that runs")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Also replace it by the same executable, or by one with fewer features")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "How long to wait for calls that are under way (default 20s)")
	return cmd
}

func (a *app) upgradePlugin(ctx context.Context, name string, query url.Values) error {
	body, err := a.answer(ctx, http.MethodPost, "/davit/plugins/"+url.PathEscape(name)+"/upgrade?"+query.Encode(), nil)
	if errors.Is(err, errNotModified) {
		fmt.Fprintf(a.out, "%s: up to date\n", name)
		return nil
	}
	if err != nil {
		return err
	}
	var done struct {
		Name     string
		From, To pluginVersion
		Paused   time.Duration
	}
	if err := json.Unmarshal(body, &done); err != nil {
		return fmt.Errorf("reading the engine's answer: %w", err)
	}
	fmt.Fprintf(a.out, "%s: %s is now %s; calls waited for %s\n", done.Name, done.From, done.To, done.Paused.Round(time.Millisecond))
	return nil
}
