package command

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// indented prints a value as runc does.
func (a *app) indented(v any) error {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s\n", body)
	return err
}

func state(a *app, _ *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) {
		s, err := a.State(args[0])
		if err != nil {
			return 1, err
		}
		return 0, a.indented(s)
	}
}

func list(a *app, f *flag.FlagSet) func([]string) (int, error) {
	format := f.String("format", "table", "`format`: table or json")
	f.StringVar(format, "f", "table", "as --format")
	quiet := f.Bool("quiet", false, "print IDs only")
	f.BoolVar(quiet, "q", false, "as --quiet")
	return func([]string) (int, error) {
		states, err := a.List()
		if err != nil {
			return 1, err
		}
		switch {
		case *quiet:
			for _, s := range states {
				fmt.Fprintln(a.out, s.ID)
			}
			return 0, nil
		case *format == "json":
			return 0, json.NewEncoder(a.out).Encode(states)
		case *format != "table":
			return 1, errors.New("invalid format option")
		}
		w := tabwriter.NewWriter(a.out, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, s := range states {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.PID, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return 0, w.Flush()
	}
}

func ps(a *app, f *flag.FlagSet) func([]string) (int, error) {
	format := f.String("format", "table", "`format`: table (of ps, with its options) or json")
	f.StringVar(format, "f", "table", "as --format")
	return func(args []string) (int, error) {
		pids, err := a.Processes(args[0])
		if err != nil {
			return 1, err
		}
		switch *format {
		case "table":
		case "json":
			if pids == nil {
				pids = []int{}
			}
			return 0, json.NewEncoder(a.out).Encode(pids)
		default:
			return 1, errors.New("invalid format option")
		}
		options := args[1:]
		if len(options) == 0 {
			options = []string{"-ef"}
		}
		said, err := exec.Command("ps", options...).CombinedOutput() //nolint:noctx // ends by itself
		if err != nil {
			return 1, fmt.Errorf("%w: %s", err, said)
		}
		return 0, a.only(pids, strings.Split(string(said), "\n"))
	}
}

// only prints the lines of ps whose PID column names one of the processes.
func (a *app) only(pids []int, lines []string) error {
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	fmt.Fprintln(a.out, lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return fmt.Errorf("unable to parse pid: %w", err)
		}
		if slices.Contains(pids, pid) {
			fmt.Fprintln(a.out, line)
		}
	}
	return nil
}
