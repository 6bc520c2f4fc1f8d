package engine

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// harmlessArgs is what may be in the arguments for ps: options and columns, no
// way to write a file.
var harmlessArgs = regexp.MustCompile(`^[-a-zA-Z0-9_,=:%+.]*$`)

// ContainerTop lists a container's processes as ps on the host shows them.
func (e *Engine) ContainerTop(ctx context.Context, name, psArgs string) (mobycontainer.TopResponse, error) {
	var response mobycontainer.TopResponse
	c, err := e.find(ctx, name)
	if err != nil {
		return response, err
	}
	r := c.Record()
	if !r.Status.Alive() {
		return response, notRunning(r)
	}
	driver, err := e.Drivers.Runtime(r.RuntimeDriver)
	if err != nil {
		return response, err
	}
	pids, err := driver.Processes(ctx, r.ID)
	if err != nil {
		return response, fmt.Errorf("listing the processes of container %s: %w", r.Name, err)
	}
	if psArgs == "" {
		psArgs = "-ef"
	}
	args := strings.Fields(psArgs)
	for _, arg := range args {
		if !harmlessArgs.MatchString(arg) {
			return response, errInvalid.WithMessage(fmt.Sprintf("ps arguments may not hold %q", arg))
		}
	}
	out, err := exec.CommandContext(ctx, "ps", args...).Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			return response, errInvalid.WithMessage("ps: " + strings.TrimSpace(string(failed.Stderr)))
		}
		return response, fmt.Errorf("running ps (install procps): %w: %w", err, errdefs.ErrUnavailable)
	}
	response, err = selectProcesses(string(out), pids)
	if err == nil {
		e.containerEvent(r, events.ActionTop, nil)
	}
	return response, err
}

// selectProcesses keeps the lines of ps that are about the given processes.
func selectProcesses(out string, pids []int) (mobycontainer.TopResponse, error) {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	response := mobycontainer.TopResponse{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	column := slices.Index(response.Titles, "PID")
	if column < 0 {
		return response, errInvalid.WithMessage("Couldn't find PID field in ps output")
	}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		// The last column is the command, with its blanks.
		if last := len(response.Titles) - 1; len(fields) > last+1 {
			fields = append(fields[:last:last], strings.Join(fields[last:], " "))
		}
		response.Processes = append(response.Processes, fields)
	}
	return response, nil
}
