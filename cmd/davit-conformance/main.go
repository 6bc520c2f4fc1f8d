// Davit-conformance is what `davit plugin test` runs: it judges a driver plugin by
// the contract. It is a program of its own so that the client stays small.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/davit-engine/davit/core/plugin"
	"github.com/davit-engine/davit/sdk/conformance"
	"github.com/davit-engine/davit/sdk/conformance/guest"
)

func main() {
	if guest.Called() {
		os.Exit(guest.Main(os.Args))
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the flags of the command.
type options struct {
	json, list, verbose bool
	junit, match, dir   string
	settings, driver    map[string]string
	timeout             time.Duration
}

const usage = `Usage:  davit plugin test [OPTIONS] BINARY

Judge a driver plugin by the contract

BINARY is davit-<kind>-<driver> with its manifest beside it. It is started with
directories of its own; davitd need not run. Exit codes: 0 it keeps the contract,
1 it does not, or could not be judged, 125 the command line is wrong.

Options:
`

// run answers the exit code.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	var o options
	flags := pflag.NewFlagSet("davit plugin test", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&o.json, "json", false, "Print the report as JSON")
	flags.StringVar(&o.junit, "junit", "", "Write the report to a `file` as JUnit XML, too")
	flags.BoolVar(&o.list, "list", false, "Print the checks and the sentences of the contract that they judge, and make none")
	flags.StringVar(&o.match, "run", "", "Make only checks whose names match a `regular expression`")
	flags.StringToStringVar(&o.settings, "set", nil, "Settings of the plugin, as in plugins.config of the engine's configuration")
	flags.StringToStringVar(&o.driver, "option", nil, "Options that a driver accepts: of networks for all, of volumes for checks that need one")
	flags.StringVar(&o.dir, "dir", "", "Make the plugin's directories in this `directory`, whose filesystem suits the driver")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "How long a check may take")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "Print what the plugin logs to standard error")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(out, usage+flags.FlagUsages())
		return 0
	case err == nil && flags.NArg() != 1:
		err = errors.New(`"davit plugin test" requires exactly 1 argument`)
	}
	if err != nil {
		fmt.Fprintf(errs, "%v\n\n%s", err, usage+flags.FlagUsages())
		return 125
	}
	failed, err := judge(ctx, o, flags.Arg(0), out, errs)
	if err != nil {
		fmt.Fprintln(errs, err)
	}
	if err != nil || failed {
		return 1
	}
	return 0
}

// judge says whether a check failed.
func judge(ctx context.Context, o options, path string, out, errs io.Writer) (bool, error) {
	k, err := prepare(o, path)
	if err != nil {
		return false, err
	}
	if o.list {
		for _, c := range conformance.Checks(k.Kind) {
			fmt.Fprintf(out, "%-32s %s\n", c.Name, c.Rule)
		}
		return false, nil
	}
	if o.verbose {
		k.Log = func(line string) { fmt.Fprintln(errs, line) }
	}
	if !o.json {
		k.Done = func(r conformance.Result) { _ = r.Text(out) }
	}
	report, err := conformance.Run(ctx, k)
	if report == nil {
		return false, err
	}
	if o.json {
		err = errors.Join(err, report.JSON(out))
	} else {
		fmt.Fprintln(out, report.Summary())
	}
	if o.junit != "" {
		err = errors.Join(err, writeJUnit(report, o.junit))
	}
	return report.Count(conformance.Fail) > 0, err
}

// prepare reads the manifest beside a plugin.
func prepare(o options, path string) (k conformance.Options, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return k, err
	}
	data, err := os.ReadFile(path + ".json")
	if err != nil {
		return k, fmt.Errorf("the manifest beside the plugin: %w", err)
	}
	m, err := plugin.ParseManifest(data)
	if err != nil {
		return k, fmt.Errorf("manifest %s.json: %w", path, err)
	}
	if want := "davit-" + m.Name; filepath.Base(path) != want {
		return k, fmt.Errorf("the plugin is called %s, and by its manifest should be %s", filepath.Base(path), want)
	}
	settings, err := typed(m, o.settings)
	if err != nil {
		return k, err
	}
	k = conformance.Options{
		Path: path, Kind: conformance.Kind(m.Kind), Name: m.Name, Dir: o.dir,
		DriverOptions: o.driver, Timeout: o.timeout,
	}
	if k.Config, err = m.Settings(settings); err != nil {
		return k, err
	}
	if o.match != "" {
		k.Match, err = regexp.Compile(o.match)
	}
	return k, err
}

// typed gives settings of the command line the types of the manifest.
func typed(m plugin.Manifest, texts map[string]string) (map[string]any, error) {
	settings := make(map[string]any, len(texts))
	for name, text := range texts {
		var value any = text
		var err error
		switch m.Config[name].Type {
		case plugin.TypeInt:
			value, err = strconv.ParseInt(text, 10, 64)
		case plugin.TypeBool:
			value, err = strconv.ParseBool(text)
		case plugin.TypeList:
			value = strings.Split(text, ",")
		case plugin.TypeString, plugin.TypeDuration, plugin.TypeSize:
		}
		if err != nil {
			return nil, fmt.Errorf("setting %s: %w", name, err)
		}
		settings[name] = value
	}
	return settings, nil
}

func writeJUnit(r *conformance.Report, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return errors.Join(r.JUnit(f), f.Close())
}
