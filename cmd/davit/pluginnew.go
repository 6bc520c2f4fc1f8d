package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/davit-engine/davit/config"
	"github.com/davit-engine/davit/sdk/scaffold"
)

// pluginNew writes the beginning of a driver; the engine has no part in it.
func pluginNew(a *app) *cobra.Command {
	d := scaffold.Driver{Version: config.Version}
	cmd := &cobra.Command{
		Use: "new [OPTIONS] [DIRECTORY]", Short: "Write the beginning of a driver plugin", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if d.Name == "" {
				return fmt.Errorf("the driver has no name: say --name NAME")
			}
			dir := d.Plugin()
			if len(args) == 1 {
				dir = args[0]
			}
			if err := d.Write(dir); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.out, "%s: a %s driver, which keeps the mandatory part of the contract\n\n    cd %s\n    make\n    sudo make test\n\nREADME.md says what it needs and how it is installed.\n", dir, d.Kind, dir)
			return err
		},
	}
	cmd.Flags().StringVar(&d.Kind, "kind", "volume", `Kind of the driver ("storage", "network", "runtime", "volume")`)
	cmd.Flags().StringVar(&d.Name, "name", "", "Name of the driver, by which users choose it")
	cmd.Flags().StringVar(&d.Lang, "lang", "go", `Language ("go", "python")`)
	return cmd
}
