package errcode

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davit-engine/davit/sdk/network"
	"github.com/davit-engine/davit/sdk/runtime"
)

// overWire passes an error through the bytes that gRPC would send.
func overWire(err error) error {
	return Decode(status.ErrorProto(status.Convert(Encode(err)).Proto()))
}

func TestEveryKindSurvivesTheWire(t *testing.T) {
	for _, k := range kinds() {
		for _, err := range []error{
			k.err,
			fmt.Errorf("mounting volume data: %w", k.err),
			fmt.Errorf("starting web: %w", fmt.Errorf("%s: %w", "exec: \"x\"", k.err)),
		} {
			got := overWire(err)
			if got.Error() != err.Error() {
				t.Errorf("%s: text became %q, want %q", k.reason, got.Error(), err.Error())
			}
			if !errors.Is(got, k.err) {
				t.Errorf("%s: errors.Is fails for %q", k.reason, got)
			}
		}
	}
}

func TestExactMessagesSurvive(t *testing.T) {
	err := errdefs.ErrInvalidArgument.WithMessage("Pool overlaps with other one on this address space")
	got := overWire(err)
	if got.Error() != err.Error() || !errdefs.IsInvalidArgument(got) {
		t.Fatalf("got %q (%T)", got, got)
	}
}

func TestSpecialReasonsKeepTheirGeneralKind(t *testing.T) {
	if got := overWire(fmt.Errorf("bind: %w", network.ErrPortInUse)); !errdefs.IsAlreadyExists(got) {
		t.Errorf("port in use is no AlreadyExists: %v", got)
	}
	if got := overWire(runtime.ErrNotExecutable); !errdefs.IsInvalidArgument(got) || errors.Is(got, runtime.ErrCommandNotFound) {
		t.Errorf("not executable: %v", got)
	}
	if got := overWire(errdefs.ErrAlreadyExists); errors.Is(got, network.ErrPortInUse) {
		t.Error("a plain AlreadyExists became a port in use")
	}
}

func TestForeignStatuses(t *testing.T) {
	if got := Decode(status.Error(codes.NotFound, "no volume x")); !errdefs.IsNotFound(got) || got.Error() != "no volume x" {
		t.Errorf("code without reason: %v", got)
	}
	if got := Decode(status.Error(codes.FailedPrecondition, "busy")); !errdefs.IsFailedPrecondition(got) {
		t.Errorf("failed precondition: %v", got)
	}
	lost := status.Error(codes.Unavailable, "error reading from server: EOF")
	if !Broken(lost) || !errdefs.IsUnavailable(Decode(lost)) {
		t.Error("a lost connection must be broken and unavailable")
	}
	if Broken(Encode(errdefs.ErrUnavailable)) {
		t.Error("a driver's own unavailable is not a lost connection")
	}
}

func TestOtherErrorsAreLeftAlone(t *testing.T) {
	if Encode(nil) != nil || Decode(nil) != nil {
		t.Error("nil must stay nil")
	}
	plain := errors.New("plain")
	if got := Decode(plain); !errors.Is(got, plain) || got.Error() != "plain" {
		t.Errorf("got %v", got)
	}
	if got := overWire(plain); got.Error() != "plain" || !errdefs.IsUnknown(got) {
		t.Errorf("got %v", got)
	}
	if got := Decode(status.FromContextError(context.DeadlineExceeded).Err()); !errors.Is(got, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", got)
	}
}
