package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// pluginStatus is the engine's answer about one driver plugin (GET
// /davit/plugins), which Docker's API does not know.
type pluginStatus struct {
	Name, Kind, Driver, Version, Path, SHA256 string
	Default                                   bool
	State                                     string
	PID, Restarts                             int
	Since                                     time.Time
	LastError                                 string
	Features                                  []string
}

func (a *app) plugins(ctx context.Context) (list []pluginStatus, raw []json.RawMessage, err error) {
	response, err := a.raw(ctx, "/davit/plugins")
	if err != nil {
		return nil, nil, fmt.Errorf("cannot connect to davitd at %s: %w. Is it running?", a.address(), err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("the engine at %s does not answer about plugins (%s): is it davitd?", a.address(), response.Status)
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, nil, err
	}
	return list, raw, json.Unmarshal(body, &raw)
}

func pluginCommands(a *app) []*cobra.Command {
	var format string
	var quiet bool
	ls := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List driver plugins and their processes", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, _, err := a.plugins(cmd.Context())
			if err != nil {
				return err
			}
			var rows []row
			for _, p := range list {
				chosen := ""
				if p.Default {
					chosen = "*"
				}
				rows = append(rows, row{
					"Name": p.Name, "Kind": p.Kind, "Driver": p.Driver, "Version": p.Version, "Default": chosen, "State": p.State,
					"PID": p.PID, "Restarts": p.Restarts, "Since": ago(p.Since), "LastError": p.LastError, "Path": p.Path,
				})
			}
			l := listing{format: format, columns: []column{
				{"Name", "NAME"}, {"Kind", "KIND"}, {"Driver", "DRIVER"}, {"Version", "VERSION"}, {"Default", "DEFAULT"}, {"State", "STATE"}, {"PID", "PID"}, {"Restarts", "RESTARTS"},
			}, all: []column{{"Since", "SINCE"}, {"LastError", "LAST ERROR"}, {"Path", "PATH"}}}
			if quiet {
				l.quiet = "Name"
			}
			return l.print(a.out, rows)
		},
	}
	ls.Flags().StringVar(&format, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template")
	ls.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display plugin names")
	inspect := &cobra.Command{Use: "inspect [OPTIONS] PLUGIN [PLUGIN...]", Short: "Display detailed information on one or more plugins", Args: atLeast(1)}
	template := inspect.Flags().StringP("format", "f", "", "Format output using a custom template: 'json' or a Go template")
	inspect.RunE = func(cmd *cobra.Command, args []string) error {
		list, raw, err := a.plugins(cmd.Context())
		if err != nil {
			return err
		}
		return inspectAll(a.out, *template, args, func(name string) (any, json.RawMessage, error) {
			for i, p := range list {
				if p.Name == name || p.Driver == name {
					return p, raw[i], nil
				}
			}
			return nil, nil, fmt.Errorf("no such plugin: %s (see davit plugin ls)", name)
		})
	}
	return []*cobra.Command{ls, inspect, pluginNew(a), pluginTest(a), pluginUpgrade(a)}
}

// pluginTest hands over to a program of its own, which has its own flags: what it
// needs would make every other command start later.
func pluginTest(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "test [OPTIONS] BINARY", Short: "Judge a driver plugin by the contract", DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			program, err := beside("davit-conformance")
			if err != nil {
				return err
			}
			judge := exec.CommandContext(cmd.Context(), program, args...)
			judge.Stdin, judge.Stdout, judge.Stderr = a.in, a.out, a.err
			err = judge.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return &status{max(exit.ExitCode(), 1), ""} // it has said why
			}
			return err
		},
	}
}

// beside finds a program that is installed with this one.
func beside(name string) (string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", fmt.Errorf("looking for %s: %w", name, err)
	}
	dir := filepath.Dir(self)
	candidates := []string{filepath.Join(dir, name), filepath.Join(dir, "..", "lib", "davit", name)}
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is neither %s nor %s: install davit again", name, candidates[0], candidates[1])
}
