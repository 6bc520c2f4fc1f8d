package main

import (
	"bufio"
	"fmt"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func isNotFound(err error) bool { return cerrdefs.IsNotFound(err) }

// pruneFlags are what all prunes have.
type pruneFlags struct {
	force   bool
	filters []string
}

func (p *pruneFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&p.force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().StringArrayVar(&p.filters, "filter", nil, "Provide filter values (e.g. \"until=<timestamp>\")")
}

// ask makes sure that the user means it.
func (p *pruneFlags) ask(a *app, what string) (client.Filters, bool, error) {
	filters, err := filterFlags(p.filters)
	if err != nil || p.force {
		return filters, err == nil, err
	}
	fmt.Fprintf(a.out, "WARNING! %s\nAre you sure you want to continue? [y/N] ", what)
	answer, _ := bufio.NewReader(a.in).ReadString('\n')
	answer = strings.ToLower(strings.TrimSpace(answer))
	return filters, answer == "y" || answer == "yes", nil
}

func (a *app) pruned(heading string, names []string, bytes uint64) {
	if len(names) > 0 {
		fmt.Fprintln(a.out, heading)
		for _, name := range names {
			a.say(name)
		}
		fmt.Fprintln(a.out)
	}
	fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(bytes)))
}
