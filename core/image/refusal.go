package image

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	mobyregistry "github.com/moby/moby/api/types/registry"

	"github.com/davit-engine/davit/core/registry"
)

// explain words a registry's refusal of a pull as Docker does.
func (p *pull) explain(err error) error {
	refused := registry.Refusal(err)
	if refused == nil {
		return unanswered(p.named, p.anonymous, err)
	}
	text := registry.Diagnosis(refused)
	has := func(codes ...transport.ErrorCode) bool {
		return slices.ContainsFunc(refused.Errors, func(d transport.Diagnostic) bool { return slices.Contains(codes, d.Code) })
	}
	if refused.Request != nil && strings.Contains(refused.Request.URL.Path, "/blobs/") && refused.StatusCode == http.StatusNotFound && !has(transport.NameUnknownErrorCode) {
		return errdefs.ErrNotFound.WithMessage(err.Error()) // the manifest was there
	}
	switch refused.StatusCode {
	case http.StatusNotFound:
		if has(transport.NameUnknownErrorCode) {
			break
		}
		return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("manifest for %s not found: %s", reference.FamiliarString(p.named), text))
	case http.StatusUnauthorized, http.StatusForbidden:
	default:
		return unanswered(p.named, p.anonymous, err)
	}
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("pull access denied for %s, repository does not exist or may require 'docker login': %s",
		reference.FamiliarName(p.named), text))
}

// unanswered words why a registry could not do what it was asked for. Who is anonymous
// is told that logging in may help.
func unanswered(named reference.Named, anonymous bool, err error) error {
	refused := registry.Refusal(err)
	switch {
	case refused != nil && refused.StatusCode == http.StatusTooManyRequests:
		return errdefs.ErrInternal.WithMessage(tooMany(reference.Domain(named), anonymous, refused, registry.LimitOf(err)))
	case errors.Is(err, registry.ErrVerification), isHostError(err), isKnown(err):
		return err
	}
	return fmt.Errorf("registry %s: %w: %w", reference.Domain(named), err, errdefs.ErrUnavailable)
}

// tooMany begins as Docker's text does, which programs look for.
func tooMany(host string, anonymous bool, refused *transport.Error, limit registry.Limit) string {
	text := registry.Diagnosis(refused)
	if !strings.HasPrefix(text, "toomanyrequests: ") {
		text = "toomanyrequests: " + strings.TrimPrefix(text, "too many requests: ")
	}
	text += " (" + host + " limits requests"
	if limit.Requests > 0 {
		text += fmt.Sprintf(", to %d in %s", limit.Requests, limit.In)
	}
	text += ": try again "
	if limit.After > 0 {
		text += "in " + limit.After.Round(time.Second).String()
	} else {
		text += "later"
	}
	if anonymous {
		login := "docker login"
		if host != "docker.io" {
			login += " " + host
		}
		text += fmt.Sprintf("; with '%s' the limit may be higher", login)
	}
	return text + ")"
}

// isKnown says whether an error has a kind already.
func isKnown(err error) bool {
	return errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) || errdefs.IsNotImplemented(err) || errdefs.IsPermissionDenied(err) || errdefs.IsCanceled(err) || errdefs.IsInternal(err) || errdefs.IsUnavailable(err)
}

// isAnonymous says whether credentials are none.
func isAnonymous(auth *mobyregistry.AuthConfig) bool {
	return auth == nil || auth.Username == "" && auth.Password == "" && auth.Auth == "" && auth.IdentityToken == "" && auth.RegistryToken == ""
}

// isAbsent says whether nobody listens where a registry should be.
func isAbsent(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// isHostError tells a fault of this host's disk or memory from one of the input.
func isHostError(err error) bool {
	return slices.ContainsFunc([]error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.ENOMEM}, func(host error) bool { return errors.Is(err, host) })
}
