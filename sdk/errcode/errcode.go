// Package errcode carries errors over gRPC: the kind as a code and a reason, the
// text unchanged. What a driver returned and what the engine receives have the
// same Error() and answer errors.Is alike.
package errcode

import (
	"context"
	"errors"

	"github.com/containerd/errdefs"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/davit-engine/davit/sdk/network"
	"github.com/davit-engine/davit/sdk/runtime"
)

// Domain of the ErrorInfo detail in every error that a davit plugin answers.
const Domain = "davit"

// kind ties an error to its form on the wire.
type kind struct {
	err    error
	code   codes.Code
	reason string
}

// The table is searched from the top: the special reasons come first because
// they are kinds of the general ones below.
func kinds() []kind {
	return []kind{
		{network.ErrPortInUse, codes.AlreadyExists, "PORT_IN_USE"},
		{runtime.ErrCommandNotFound, codes.InvalidArgument, "COMMAND_NOT_FOUND"},
		{runtime.ErrNotExecutable, codes.InvalidArgument, "COMMAND_NOT_EXECUTABLE"},

		{errdefs.ErrInvalidArgument, codes.InvalidArgument, "INVALID_ARGUMENT"},
		{errdefs.ErrNotFound, codes.NotFound, "NOT_FOUND"},
		{errdefs.ErrAlreadyExists, codes.AlreadyExists, "ALREADY_EXISTS"},
		{errdefs.ErrPermissionDenied, codes.PermissionDenied, "PERMISSION_DENIED"},
		{errdefs.ErrUnauthenticated, codes.Unauthenticated, "UNAUTHENTICATED"},
		{errdefs.ErrResourceExhausted, codes.ResourceExhausted, "RESOURCE_EXHAUSTED"},
		{errdefs.ErrFailedPrecondition, codes.FailedPrecondition, "FAILED_PRECONDITION"},
		{errdefs.ErrConflict, codes.FailedPrecondition, "CONFLICT"},
		{errdefs.ErrNotModified, codes.FailedPrecondition, "NOT_MODIFIED"},
		{errdefs.ErrAborted, codes.Aborted, "ABORTED"},
		{errdefs.ErrOutOfRange, codes.OutOfRange, "OUT_OF_RANGE"},
		{errdefs.ErrNotImplemented, codes.Unimplemented, "NOT_IMPLEMENTED"},
		{errdefs.ErrInternal, codes.Internal, "INTERNAL"},
		{errdefs.ErrUnavailable, codes.Unavailable, "UNAVAILABLE"},
		{errdefs.ErrDataLoss, codes.DataLoss, "DATA_LOSS"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
		{context.Canceled, codes.Canceled, "CANCELED"},
		{errdefs.ErrUnknown, codes.Unknown, "UNKNOWN"},
	}
}

// Encode turns a driver's error into a gRPC status error. A status error stays
// what it is; nil stays nil.
func Encode(err error) error {
	if err == nil {
		return nil
	}
	if isStatus(err) {
		return err
	}
	k := kind{code: codes.Unknown, reason: "UNKNOWN"}
	for _, known := range kinds() {
		if errors.Is(err, known.err) {
			k = known
			break
		}
	}
	st := status.New(k.code, err.Error())
	detailed, derr := st.WithDetails(&errdetails.ErrorInfo{Reason: k.reason, Domain: Domain})
	if derr != nil {
		return st.Err()
	}
	return detailed.Err()
}

// Decode turns what a gRPC call returned into an error of the kind and text the
// driver gave it. Errors that did not come from gRPC stay what they are; a
// broken connection is errdefs.ErrUnavailable.
func Decode(err error) error {
	if err == nil || !isStatus(err) {
		return err
	}
	st := status.Convert(err)
	reason := Reason(err)
	for _, k := range kinds() {
		if reason == k.reason {
			return &remote{text: st.Message(), kind: k.err}
		}
	}
	for _, k := range kinds()[special:] {
		if st.Code() == k.code {
			return &remote{text: st.Message(), kind: k.err}
		}
	}
	return &remote{text: st.Message(), kind: errdefs.ErrUnknown}
}

// special is the number of rows with reasons that no code alone stands for.
const special = 3

// Reason is the reason a plugin gave for an error, empty if the error is not a
// plugin's: a connection that broke, a deadline that passed.
func Reason(err error) string {
	st, ok := status.FromError(err)
	if !ok {
		return ""
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return info.GetReason()
		}
	}
	return ""
}

// Broken says whether a call failed because its connection did, so that nobody
// knows whether the plugin has seen it.
func Broken(err error) bool {
	return isStatus(err) && status.Code(err) == codes.Unavailable && Reason(err) == ""
}

// isStatus tells errors of gRPC itself from errors that merely wrap one.
func isStatus(err error) bool {
	_, ok := err.(interface{ GRPCStatus() *status.Status })
	return ok
}

// remote is an error that came over the wire.
type remote struct {
	text string
	kind error
}

func (e *remote) Error() string { return e.text }
func (e *remote) Unwrap() error { return e.kind }
