package criu

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

const (
	// maxComplaints is how many of a log's errors are worth telling: the last ones say
	// that it failed, those before why.
	maxComplaints = 6
	// maxComplaint bounds one line.
	maxComplaint = 300
)

// Explain adds to an error of CRIU what its log says, if it says anything.
func Explain(err error, log string) error {
	if err == nil {
		return nil
	}
	if found := complaints(log); len(found) > 0 {
		return fmt.Errorf("%w (%s: %s)", err, log, strings.Join(found, "; "))
	}
	return err
}

// complaints are the last errors in a log, the oldest first; without any, its
// last line.
func complaints(log string) []string {
	f, err := os.Open(log)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	var errors []string
	last := ""
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "(") { // the time
			if _, rest, ok := strings.Cut(line, ")"); ok {
				line = strings.TrimSpace(rest)
			}
		}
		line = line[:min(len(line), maxComplaint)]
		if line != "" {
			last = line
		}
		// With its process before it where more than one are at work: "    12: Error (…".
		if strings.HasPrefix(line, "Error (") || strings.Contains(line, ": Error (") {
			errors = append(errors, line)
			errors = errors[max(0, len(errors)-maxComplaints):]
		}
	}
	if len(errors) == 0 && last != "" {
		return []string{last}
	}
	return errors
}
