// Validate runs the validation programs of opencontainers/runtime-tools with
// davit-oci and, in the same run, with runc, and writes the results as a table.
//
// It runs in the repository's root:
//
//	go run ./test/validate [-write docs/runtime-validation.md] [-only NAME,...]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/davit-engine/davit/test/private"
	"github.com/davit-engine/davit/test/validate/suite"
)

func main() {
	write := flag.String("write", "", "also write the table to this `file`")
	only := flag.String("only", "", "comma-separated `programs`; empty: all")
	timeout := flag.Duration("timeout", time.Minute, "for each program")
	flag.Parse()
	if err := run(*write, *only, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "validate:", err)
		os.Exit(1)
	}
}

func run(write, only string, timeout time.Duration) error {
	bin, err := private.BinDir()
	if err != nil {
		return err
	}
	s, err := suite.Build(context.Background(), "test/validation", "build/validation")
	if err != nil {
		return err
	}
	runtimes := []string{filepath.Join(bin, "davit-oci")}
	if runc, err := exec.LookPath("runc"); err == nil {
		runtimes = append(runtimes, runc)
	}
	out := io.Writer(os.Stdout)
	if write != "" {
		f, err := os.Create(write)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		out = io.MultiWriter(os.Stdout, f)
	}
	fmt.Fprint(out, head)
	for _, name := range s.Programs() {
		if only != "" && !slices.Contains(strings.Split(only, ","), name) {
			continue
		}
		var cells []string
		var reasons []string
		for _, runtime := range runtimes {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			result, err := s.Run(ctx, runtime, name)
			cancel()
			if err != nil {
				return err
			}
			cells = append(cells, result.String())
			if result.Said != "" {
				reasons = append(reasons, filepath.Base(runtime)+" said: "+result.Said)
			}
			for _, failed := range result.Failed {
				reasons = append(reasons, filepath.Base(runtime)+": "+failed)
			}
		}
		fmt.Fprintf(out, "| %s | %s | %s |\n", name, strings.Join(cells, " | "), strings.Join(shorten(reasons), "<br>"))
	}
	return nil
}

const head = `# Validation

The programs of [opencontainers/runtime-tools](https://github.com/opencontainers/runtime-tools) 0.9.0, which judge OCI runtimes, run with davit-oci and with runc one after the other on the same machine. ` + "`go run ./test/validate -write docs/runtime-validation.md`" + ` writes this page anew. A cell has the checks that passed of all that were made.

The only program that runc passes and davit-oci does not is linux_ns_itype: it wants a container without a mount namespace of its own, which davit-oci refuses. Checks that fail with both are the programs' or the machine's: "kernel" limits of memory do not exist any more in current kernels; deleting a created container is allowed; CAP_SYS_RESOURCE cannot be given where root does not have it; the checker of RLIMIT_NOFILE is a Go program, which raises its own soft limit; without AppArmor and SELinux in the kernel their labels are refused.

| program | davit-oci | runc | failed |
|---|---|---|---|
`

// shorten keeps the first reasons: one cause fails many checks.
func shorten(reasons []string) []string {
	const most = 4
	for i, reason := range reasons {
		reasons[i] = strings.ReplaceAll(reason, "|", `\|`)
	}
	if len(reasons) > most {
		return append(reasons[:most:most], fmt.Sprintf("and %d more", len(reasons)-most))
	}
	return reasons
}
