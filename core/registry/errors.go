package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// ErrVerification is of content that is not what its digest or size says.
var ErrVerification = errors.New("verification failed")

// Diagnosis is what a registry said when it refused, in Docker's form.
func Diagnosis(err *transport.Error) string {
	if len(err.Errors) == 0 { // the answer of a HEAD has no body
		switch err.StatusCode {
		case http.StatusUnauthorized:
			return "unauthorized: authentication required"
		case http.StatusForbidden:
			return "denied: requested access to the resource is denied"
		}
		return strings.ToLower(http.StatusText(err.StatusCode)) + ": " + err.Error()
	}
	d := err.Errors[0]
	return strings.ToLower(strings.ReplaceAll(string(d.Code), "_", " ")) + ": " + d.Message
}

// Limit is what a registry that refused says of when it will not.
type Limit struct {
	After    time.Duration // it wants to be left alone; zero: it does not say
	Requests int           // that it answers ...
	In       time.Duration // ... in so long; zero: it does not say
}

// limited is a refusal of a registry with what it says of its limits.
type limited struct {
	error
	Limit
}

// Unwrap answers the refusal.
func (l *limited) Unwrap() error { return l.error }

// withLimit adds to a refusal what its headers say: Retry-After (RFC 9110, 10.2.3) and
// RateLimit-Limit as Docker Hub has it, "100;w=21600".
func withLimit(err error, head http.Header) error {
	var l Limit
	after := head.Get("Retry-After")
	if seconds, parsed := strconv.ParseInt(after, 10, 32); parsed == nil && seconds >= 0 {
		l.After = time.Duration(seconds) * time.Second
	} else if at, parsed := http.ParseTime(after); parsed == nil {
		l.After = max(0, time.Until(at))
	}
	var requests, seconds int32
	if n, parsed := fmt.Sscanf(head.Get("RateLimit-Limit"), "%d;w=%d", &requests, &seconds); parsed == nil && n == 2 && requests > 0 && seconds > 0 {
		l.Requests, l.In = int(requests), time.Duration(seconds)*time.Second
	}
	if l == (Limit{}) {
		return err
	}
	return &limited{err, l}
}

// LimitOf is what a registry that refused says of its limits.
func LimitOf(err error) Limit {
	var l *limited
	if errors.As(err, &l) {
		return l.Limit
	}
	return Limit{}
}

// RetryAfter is how long a registry that refused wants to be left alone; zero if it
// did not say.
func RetryAfter(err error) time.Duration { return LimitOf(err).After }

// Refusal answers a registry's refusal within an error, or nil.
func Refusal(err error) *transport.Error {
	var refused *transport.Error
	if errors.As(err, &refused) {
		return refused
	}
	return nil
}

// MayPass says whether the same request may succeed later: faults of the network and
// of servers may, refusals and certificates that nobody vouches for do not.
func MayPass(err error) bool {
	if refused := Refusal(err); refused != nil {
		switch refused.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	switch {
	case errors.Is(err, errSilent):
		return true
	case err == nil || errors.Is(err, context.Canceled):
		return false
	}
	var (
		unknown   x509.UnknownAuthorityError
		wrongHost x509.HostnameError
		wrong     x509.CertificateInvalidError
		certs     *tls.CertificateVerificationError
		header    tls.RecordHeaderError
		peer      *net.OpError
		noHost    *net.DNSError
	)
	switch {
	case errors.As(err, &unknown), errors.As(err, &wrongHost), errors.As(err, &wrong), errors.As(err, &certs), errors.As(err, &header),
		errors.Is(err, errPlainHTTP), errors.Is(err, http.ErrSchemeMismatch), errors.Is(err, ErrVerification):
		return false
	case errors.As(err, &peer) && (peer.Op == "remote error" || peer.Op == "local error"):
		return false // an alert of TLS
	case errors.As(err, &noHost):
		return noHost.IsTemporary || noHost.IsTimeout
	}
	var request *url.Error
	var network *net.OpError
	return errors.As(err, &request) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF)
}

// plain leaves out that the library tried without TLS, too, where that is not allowed.
func plain(err error) error {
	var request *url.Error
	if !errors.Is(err, errPlainHTTP) || !errors.As(err, &request) {
		return err
	}
	if errors.Is(request, errPlainHTTP) && request.URL != "" && strings.HasPrefix(request.URL, "http:") {
		return fmt.Errorf("%s %q: %w", strings.ToUpper(request.Op), request.URL, errPlainHTTP)
	}
	return request
}
