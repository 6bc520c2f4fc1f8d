package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// checked is the engine's answer to POST /davit/system/check, which Docker's API does
// not know.
type checked struct {
	Blobs   int
	Bytes   int64
	Damaged []struct {
		Digest, Problem string
		Images          []string
		Removed         bool
	}
}

// checkCommand has the engine prove all blobs. It ends with 1 if some are damaged.
func checkCommand(a *app) *cobra.Command {
	var repair bool
	var format string
	cmd := &cobra.Command{
		Use: "check [OPTIONS]", Short: "Read all blobs of images and check that they are what they were", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/davit/system/check"
			if repair {
				path += "?repair=1"
			}
			body, err := a.answer(cmd.Context(), http.MethodPost, path, nil)
			if err != nil {
				return err
			}
			var found checked
			if err := json.Unmarshal(body, &found); err != nil {
				return err
			}
			switch format {
			case "":
				a.showCheck(found)
			case "json":
				if err := json.NewEncoder(a.out).Encode(found); err != nil {
					return err
				}
			default:
				if err := execute(a.out, unescape(format)+"\n", found); err != nil {
					return err
				}
			}
			if len(found.Damaged) > 0 {
				return &status{code: 1}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "Remove blobs that are damaged, so that a pull or load brings them anew")
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format output using a custom template: 'json' or a Go template")
	return cmd
}

func (a *app) showCheck(found checked) {
	a.say(fmt.Sprintf("%d blobs with %s: %d damaged", found.Blobs, units.HumanSizeWithPrecision(float64(found.Bytes), 4), len(found.Damaged)))
	kept := false
	for _, d := range found.Damaged {
		line := d.Digest + " " + d.Problem
		if d.Removed {
			line += "; removed"
		}
		if len(d.Images) > 0 {
			line += "; needed by " + strings.Join(d.Images, ", ")
		}
		kept = kept || !d.Removed
		a.say(line)
	}
	switch {
	case kept:
		a.say("Run davit system check --repair, and then pull or load these images again.")
	case len(found.Damaged) > 0:
		a.say("Pull or load these images again.")
	}
}
