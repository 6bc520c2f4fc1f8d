// Davit-log-compress replaces a rotated log file of a container by its compressed
// form, with ".gz" behind its name. It is started by davit-monitor, never by hand.
package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/davit-engine/davit/sdk/monitor"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "davit-log-compress is started by davit-monitor: there is nothing to run by hand")
		os.Exit(2)
	}
	if err := compress(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "compressing the log:", err)
		_ = os.Remove(os.Args[1] + monitor.PackingSuffix)
		os.Exit(1)
	}
}

func compress(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	id, err := monitor.NewLogID(in)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path+monitor.PackingSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	w := gzip.NewWriter(out)
	w.Extra = id.Extra()
	_, err = io.Copy(w, in)
	if err = errors.Join(err, w.Close(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+monitor.PackingSuffix, path+monitor.PackedSuffix); err != nil {
		return err
	}
	return os.Remove(path)
}
