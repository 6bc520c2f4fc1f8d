package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// errPlainHTTP refuses to go on without TLS, whoever says so: the library's guess
// for private addresses, or a redirection.
var errPlainHTTP = errors.New("plain HTTP is only for registries that are configured as insecure")

// transport is the way to one registry. Certificates are read each time, so that
// new ones need no restart.
func (r *Registries) transport(domain string, h Host) (http.RoundTripper, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: h.Insecure} //nolint:gosec // the configuration says so
	if err := trust(conf, h); err != nil {
		return nil, fmt.Errorf("registry %s: %w", domain, err)
	}
	if r.CertsDir != "" {
		if err := trustDir(conf, filepath.Join(r.CertsDir, domain)); err != nil {
			return nil, fmt.Errorf("registry %s: %w", domain, err)
		}
	}
	base := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		DialContext:     (&net.Dialer{Timeout: r.Silence, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig: conf, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second,
		DisableCompression: true, // digests are of what is sent
	}
	var way http.RoundTripper = base
	if !h.Insecure {
		way = onlyTLS{base}
	}
	return transport.NewUserAgent(way, userAgent), nil
}

// onlyTLS lets no request out in the clear.
type onlyTLS struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t onlyTLS) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errPlainHTTP
	}
	return t.RoundTripper.RoundTrip(r)
}

// trust adds the files that the configuration names.
func trust(conf *tls.Config, h Host) error {
	if h.CA != "" {
		if err := addAuthorities(conf, h.CA); err != nil {
			return err
		}
	}
	if h.Cert != "" || h.Key != "" {
		return addClient(conf, h.Cert, h.Key)
	}
	return nil
}

// trustDir adds the files of a folder in Docker's certs.d layout, which need not be
// there.
func trustDir(conf *tls.Config, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading certificates: %w", err)
	}
	has := map[string]bool{}
	for _, e := range entries {
		has[e.Name()] = true
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		stem := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		switch filepath.Ext(e.Name()) {
		case ".crt":
			err = addAuthorities(conf, file)
		case ".cert":
			if !has[stem+".key"] {
				return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("missing key %s.key for client certificate %s. CA certificates must use the extension .crt", stem, file))
			}
			err = addClient(conf, file, filepath.Join(dir, stem+".key"))
		case ".key":
			if !has[stem+".cert"] {
				return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("missing client certificate %s.cert for key %s", stem, file))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func addAuthorities(conf *tls.Config, file string) error {
	pem, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading certificate authorities: %w", err)
	}
	if conf.RootCAs == nil {
		if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
			conf.RootCAs = x509.NewCertPool() // a host without any
		}
	}
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return errdefs.ErrInvalidArgument.WithMessage(file + ": no certificate in it")
	}
	return nil
}

func addClient(conf *tls.Config, cert, key string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("reading the client certificate: %w", err)
	}
	conf.Certificates = append(conf.Certificates, pair)
	return nil
}
