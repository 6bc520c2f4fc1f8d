package main

import (
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func searchCommand(a *app) *cobra.Command {
	var full bool
	var format string
	var filters []string
	var o client.ImageSearchOptions
	cmd := &cobra.Command{
		Use: "search [OPTIONS] TERM", Short: "Search Docker Hub for images", Args: exactly(1),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) (err error) {
			if o.Filters, err = filterFlags(filters); err != nil {
				return err
			}
			if o.RegistryAuth, err = a.credentials(searched(args[0])); err != nil {
				return err
			}
			result, err := api.ImageSearch(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			var rows []row
			for _, found := range result.Items {
				about := []rune(strings.NewReplacer("\n", " ", "\r", " ").Replace(found.Description))
				if !full && len(about) > 45 {
					about = append(about[:44], '…')
				}
				official := ""
				if found.IsOfficial {
					official = "[OK]"
				}
				rows = append(rows, row{"Name": found.Name, "Description": string(about), "StarCount": found.StarCount, "IsOfficial": official, "IsAutomated": ""})
			}
			l := listing{format: format, columns: []column{{"Name", "NAME"}, {"Description", "DESCRIPTION"}, {"StarCount", "STARS"}, {"IsOfficial", "OFFICIAL"}}, all: []column{{"IsAutomated", "AUTOMATED"}}}
			return l.print(a.out, rows)
		}),
	}
	flags := cmd.Flags()
	flags.BoolVar(&full, "no-trunc", false, "Don't truncate output")
	flags.StringArrayVarP(&filters, "filter", "f", nil, "Filter output based on conditions provided")
	flags.IntVar(&o.Limit, "limit", 0, "Max number of search results")
	flags.StringVar(&format, "format", "", "Pretty-print search using a Go template")
	return cmd
}

// searched is a name at the registry that a term is looked for.
func searched(term string) string {
	first, _, nested := strings.Cut(term, "/")
	if nested && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return first + "/any"
	}
	return "any"
}
