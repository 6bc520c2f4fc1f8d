package main

import (
	"strconv"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func dfCommand(a *app) *cobra.Command {
	var format string
	var verbose bool
	cmd := &cobra.Command{
		Use: "df [OPTIONS]", Short: "Show disk usage", Args: exactly(0),
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, _ []string) error {
			u, err := api.DiskUsage(cmd.Context(), client.DiskUsageOptions{Containers: true, Images: true, Volumes: true, Verbose: verbose})
			if err != nil {
				return err
			}
			if verbose {
				return a.usage(u, format)
			}
			size := func(v int64) string { return units.HumanSizeWithPrecision(float64(v), 4) }
			rows := []row{
				{"Type": "Images", "TotalCount": u.Images.TotalCount, "Active": u.Images.ActiveCount, "Size": size(u.Images.TotalSize), "Reclaimable": size(u.Images.Reclaimable)},
				{"Type": "Containers", "TotalCount": u.Containers.TotalCount, "Active": u.Containers.ActiveCount, "Size": size(u.Containers.TotalSize), "Reclaimable": size(u.Containers.Reclaimable)},
				{"Type": "Local Volumes", "TotalCount": u.Volumes.TotalCount, "Active": u.Volumes.ActiveCount, "Size": size(u.Volumes.TotalSize), "Reclaimable": size(u.Volumes.Reclaimable)},
				{"Type": "Build Cache", "TotalCount": 0, "Active": 0, "Size": size(0), "Reclaimable": size(0)},
			}
			return listing{format: format, columns: []column{{"Type", "TYPE"}, {"TotalCount", "TOTAL"}, {"Active", "ACTIVE"}, {"Size", "SIZE"}, {"Reclaimable", "RECLAIMABLE"}}}.print(a.out, rows)
		}),
	}
	cmd.Flags().StringVar(&format, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	return cmd
}

// usage lists every image, container and volume.
func (a *app) usage(u client.DiskUsageResult, format string) error {
	var images, containers, volumes []row
	for _, img := range u.Images.Items {
		for _, r := range imageRows(img, false) {
			r["SharedSize"], r["UniqueSize"] = units.HumanSizeWithPrecision(float64(img.SharedSize), 3), units.HumanSizeWithPrecision(float64(img.Size-img.SharedSize), 3)
			r["Containers"] = strconv.FormatInt(img.Containers, 10)
			images = append(images, r)
		}
	}
	for _, c := range u.Containers.Items {
		containers = append(containers, containerRow(c, false))
	}
	for _, v := range u.Volumes.Items {
		volumes = append(volumes, volumeRow(v))
	}
	for _, part := range []struct {
		title   string
		rows    []row
		columns []column
	}{
		{"Images space usage:", images, []column{{"Repository", "REPOSITORY"}, {"Tag", "TAG"}, {"ID", "IMAGE ID"}, {"CreatedSince", "CREATED"}, {"Size", "SIZE"}, {"SharedSize", "SHARED SIZE"}, {"UniqueSize", "UNIQUE SIZE"}, {"Containers", "CONTAINERS"}}},
		{"Containers space usage:", containers, []column{
			{"ID", "CONTAINER ID"}, {"Image", "IMAGE"}, {"Command", "COMMAND"}, {"LocalVolumes", "LOCAL VOLUMES"}, {"Size", "SIZE"}, {"RunningFor", "CREATED"}, {"Status", "STATUS"}, {"Names", "NAMES"},
		}},
		{"Local Volumes space usage:", volumes, []column{{"Name", "VOLUME NAME"}, {"Links", "LINKS"}, {"Size", "SIZE"}}},
	} {
		if format == "" {
			a.say(part.title)
			a.say("")
		}
		if err := (listing{format: format, columns: part.columns}).print(a.out, part.rows); err != nil {
			return err
		}
		if format == "" {
			a.say("")
		}
	}
	return nil
}

// volumeRow is a volume in the words of Docker's formats. Links and size are known
// where they were asked for.
func volumeRow(v volume.Volume) row {
	r := row{
		"Driver": v.Driver, "Name": v.Name, "Mountpoint": v.Mountpoint, "Scope": v.Scope, "Labels": joined(v.Labels),
		"Links": "N/A", "Size": "N/A", "Availability": "N/A", "Group": "N/A", "Status": "N/A",
	}
	if u := v.UsageData; u != nil {
		r["Links"] = strconv.FormatInt(u.RefCount, 10)
		if u.Size >= 0 {
			r["Size"] = units.HumanSizeWithPrecision(float64(u.Size), 3)
		}
	}
	return r
}
