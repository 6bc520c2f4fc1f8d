package native

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/monitor"
	"github.com/davit-engine/davit/sdk/runtime"
)

// call asks a container's monitor; without one the container has ended.
func (d *Driver) call(ctx context.Context, id string, request monitor.Request) (monitor.Response, error) {
	if _, err := d.load(id); err != nil {
		return monitor.Response{}, err
	}
	return d.ask(ctx, id, request)
}

// ask is call for who has loaded the container's record.
func (d *Driver) ask(ctx context.Context, id string, request monitor.Request) (monitor.Response, error) {
	response, err := monitor.Call(ctx, d.socket(id), request)
	return response, convertError(id, err)
}

// convertError gives a monitor's failure the kind that callers expect.
func convertError(id string, err error) error {
	if err == nil {
		return nil
	}
	if monitor.Gone(err) {
		return fmt.Errorf("container %s has ended: %w", id, errdefs.ErrNotFound)
	}
	var failure *monitor.Failure
	if !errors.As(err, &failure) {
		return err
	}
	switch failure.Kind {
	case monitor.KindNotFound:
		return fmt.Errorf("%w: %w", failure, errdefs.ErrNotFound)
	case monitor.KindExists:
		return fmt.Errorf("%w: %w", failure, errdefs.ErrAlreadyExists)
	case monitor.KindPrecondition:
		return fmt.Errorf("%w: %w", failure, errdefs.ErrFailedPrecondition)
	case monitor.KindInvalid:
		return fmt.Errorf("%w: %w", failure, errdefs.ErrInvalidArgument)
	case monitor.KindCommandNotFound:
		return &commandError{failure.Message, runtime.ErrCommandNotFound}
	case monitor.KindCommandNotExecable:
		return &commandError{failure.Message, runtime.ErrNotExecutable}
	}
	return failure
}

// commandError has exactly the stage's text and the kind beside it.
type commandError struct {
	text string
	kind error
}

func (e *commandError) Error() string { return e.text }
func (e *commandError) Unwrap() error { return e.kind }
