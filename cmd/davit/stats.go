package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/moby/term"
	"github.com/spf13/cobra"
)

func statsCommand(a *app) *cobra.Command {
	var all, once, full bool
	var format string
	cmd := &cobra.Command{
		Use: "stats [OPTIONS] [CONTAINER...]", Short: "Display a live stream of container(s) resource usage statistics",
		RunE: a.with(func(cmd *cobra.Command, api *client.Client, args []string) error {
			l := listing{format: format, columns: []column{
				{"ID", "CONTAINER ID"}, {"Name", "NAME"}, {"CPUPerc", "CPU %"}, {"MemUsage", "MEM USAGE / LIMIT"}, {"MemPerc", "MEM %"}, {"NetIO", "NET I/O"}, {"BlockIO", "BLOCK I/O"}, {"PIDs", "PIDS"},
			}, all: []column{{"Container", "CONTAINER"}}}
			for {
				names := args
				if len(names) == 0 {
					list, err := api.ContainerList(cmd.Context(), client.ContainerListOptions{All: all})
					if err != nil {
						return err
					}
					for _, c := range list.Items {
						names = append(names, c.ID)
					}
				}
				rows, err := a.sample(cmd, api, names, full)
				if err != nil {
					return err
				}
				if file, ok := a.out.(interface{ Fd() uintptr }); ok && !once && term.IsTerminal(file.Fd()) {
					fmt.Fprint(a.out, "\033[2J\033[H")
				}
				if err := l.print(a.out, rows); err != nil || once {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(500 * time.Millisecond):
				}
			}
		}),
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	cmd.Flags().BoolVar(&once, "no-stream", false, "Disable streaming stats and only pull the first result")
	cmd.Flags().BoolVar(&full, "no-trunc", false, "Do not truncate output")
	cmd.Flags().StringVar(&format, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template")
	return cmd
}

// sample asks for all containers at once: each answer takes a second, between
// two readings of the CPU.
func (a *app) sample(cmd *cobra.Command, api *client.Client, names []string, full bool) ([]row, error) {
	rows, failures := make([]row, len(names)), make([]error, len(names))
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() {
			result, err := api.ContainerStats(cmd.Context(), name, client.ContainerStatsOptions{IncludePreviousSample: true})
			if err != nil {
				failures[i] = err
				return
			}
			defer func() { _ = result.Body.Close() }()
			var s container.StatsResponse
			if err := json.NewDecoder(result.Body).Decode(&s); err != nil && err != io.EOF {
				failures[i] = err
				return
			}
			rows[i] = statsRow(name, s, full)
		})
	}
	group.Wait()
	kept := rows[:0]
	for i, err := range failures {
		switch {
		case err == nil:
			kept = append(kept, rows[i])
		case !isNotFound(err) || len(names) == 1:
			return nil, err
		}
	}
	return kept, nil
}

func statsRow(name string, s container.StatsResponse, full bool) row {
	id := s.ID
	if id == "" {
		id = name
	}
	cpu := 0.0
	used := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	if system := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage); system > 0 && used > 0 {
		cpu = used / system * float64(max(s.CPUStats.OnlineCPUs, 1)) * 100
	}
	memory := memoryUsed(s.MemoryStats)
	percent := 0.0
	if s.MemoryStats.Limit > 0 {
		percent = memory / float64(s.MemoryStats.Limit) * 100
	}
	var rx, tx, read, written float64
	for _, n := range s.Networks {
		rx += float64(n.RxBytes)
		tx += float64(n.TxBytes)
	}
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			read += float64(e.Value)
		case "write":
			written += float64(e.Value)
		}
	}
	size := func(v float64) string { return units.HumanSizeWithPrecision(v, 3) }
	return row{
		"Container": name, "ID": shown(id, full), "Name": strings.TrimPrefix(s.Name, "/"), "CPUPerc": fmt.Sprintf("%.2f%%", cpu),
		"MemUsage": units.BytesSize(memory) + " / " + units.BytesSize(float64(s.MemoryStats.Limit)), "MemPerc": fmt.Sprintf("%.2f%%", percent),
		"NetIO": size(rx) + " / " + size(tx), "BlockIO": size(read) + " / " + size(written), "PIDs": strconv.FormatUint(s.PidsStats.Current, 10),
	}
}

// memoryUsed leaves the page cache out that the kernel can take back.
func memoryUsed(m container.MemoryStats) float64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := m.Stats[key]; ok && v < m.Usage {
			return float64(m.Usage - v)
		}
	}
	return float64(m.Usage)
}
