package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	memory "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	mobyregistry "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"

	"github.com/davit-engine/davit/core/registry"
	"github.com/davit-engine/davit/test/faultproxy"
)

// newRegistry is an empty registry behind a proxy.
func newRegistry(t *testing.T) *faultproxy.Proxy {
	t.Helper()
	p := faultproxy.New(memory.New(memory.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(p.Close)
	return p
}

// put puts an image into a registry under a name's path.
func put(t *testing.T, address, path string, options ...remote.Option) v1.Image {
	t.Helper()
	img, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(address + "/" + path)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, options...); err != nil {
		t.Fatal(err)
	}
	return img
}

func parse(t *testing.T, ref string) reference.Named {
	t.Helper()
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		t.Fatal(err)
	}
	return named
}

// sources asks for a pull's sources.
func sources(t *testing.T, o registry.Options, ref string, auth *mobyregistry.AuthConfig) []*registry.Repository {
	t.Helper()
	list, err := registry.New(o).ForPull(parse(t, ref), auth)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestMirrorsStandBeforeTheRegistry(t *testing.T) {
	mirror := newRegistry(t)
	img := put(t, mirror.Address, "cache/team/app:v1")
	mirror.Forget()
	o := registry.Options{Hosts: map[string]registry.Host{"registry.example": {Mirrors: []string{"http://" + mirror.Address + "/cache/", "other.example:5000"}}}}
	list := sources(t, o, "registry.example/team/app", &mobyregistry.AuthConfig{Username: "somebody", Password: "secret"})
	var names []string
	for _, r := range list {
		names = append(names, r.String())
	}
	if diff := cmp.Diff([]string{mirror.Address + "/cache/team/app", "other.example:5000/team/app", "registry.example/team/app"}, names); diff != "" {
		t.Error(diff)
	}
	body, d, err := list[0].Manifest(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := img.Digest(); d.Digest.String() != want.String() || int64(len(body)) != d.Size {
		t.Errorf("got %v, want %s", d, want)
	}
	for _, r := range mirror.Asked(http.MethodGet, "/") {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("the mirror was given the registry's credentials: %s", r.Path)
		}
	}
}

func TestBlockedRegistriesAreNotAsked(t *testing.T) {
	p := newRegistry(t)
	all := registry.New(registry.Options{Hosts: map[string]registry.Host{"*": {Blocked: true}, "good.example": {}}})
	one := registry.New(registry.Options{Hosts: map[string]registry.Host{p.Address: {Blocked: true}}})
	for _, r := range []*registry.Registries{all, one} {
		_, pull := r.ForPull(parse(t, p.Address+"/x"), nil)
		_, push := r.ForPush(parse(t, p.Address+"/x"), nil)
		login := r.Login(t.Context(), &mobyregistry.AuthConfig{ServerAddress: p.Address})
		for _, err := range []error{pull, push, login} {
			if !errdefs.IsPermissionDenied(err) || err.Error() != "registry "+p.Address+" is blocked by the configuration" {
				t.Errorf("got %v", err)
			}
		}
	}
	if asked := p.Asked(http.MethodGet, ""); len(asked) > 0 {
		t.Errorf("it was asked: %v", asked)
	}
	if _, err := all.ForPull(parse(t, "good.example/x"), nil); err != nil {
		t.Error("the one that is allowed:", err)
	}
}

// authority signs the certificates of a test.
type authority struct {
	*testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
	// address is what the certificates are for.
	address string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{T: t, dir: t.TempDir(), address: private(t)}
	a.key = a.newKey()
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	a.write("ca.pem", "CERTIFICATE", a.sign(a.cert, &a.key.PublicKey))
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.Fatal(err)
	}
	return key
}

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PublicKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key, a.key)
	if err != nil {
		a.Fatal(err)
	}
	return der
}

func (a *authority) write(file, kind string, der []byte) string {
	path := filepath.Join(a.dir, file)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.Fatal(err)
	}
	return path
}

// issue makes a certificate and its key.
func (a *authority) issue(file string, usage x509.ExtKeyUsage) (cert, key string) {
	k := a.newKey()
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: file}, IPAddresses: []net.IP{net.ParseIP(a.address)}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		a.Fatal(err)
	}
	return a.write(file+".cert", "CERTIFICATE", a.sign(c, &k.PublicKey)), a.write(file+".key", "EC PRIVATE KEY", der)
}

// secured is a registry with TLS that wants client certificates of the authority.
func (a *authority) secured() *faultproxy.Proxy {
	cert, key := a.issue("server", x509.ExtKeyUsageServerAuth)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		a.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(must(x509.ParseCertificate(a.sign(a.cert, &a.key.PublicKey))))
	p := faultproxy.NewTLS(memory.New(memory.Logger(log.New(io.Discard, "", 0))), func(s *httptest.Server) {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		_ = s.Listener.Close()
		s.Listener = a.listen()
	})
	a.Cleanup(p.Close)
	return p
}

func (a *authority) listen() net.Listener {
	listener, err := net.Listen("tcp", net.JoinHostPort(a.address, "0"))
	if err != nil {
		a.Fatal(err)
	}
	return listener
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestCertificates(t *testing.T) {
	a := newAuthority(t)
	// The loopback would be trusted without certificates.
	host := a.secured().Address
	ref := host + "/team/app"
	cert, key := a.issue("client", x509.ExtKeyUsageClientAuth)
	ca := filepath.Join(a.dir, "ca.pem")

	certs := t.TempDir()
	own := filepath.Join(certs, host)
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	link := func(from, to string) {
		if err := os.Symlink(from, filepath.Join(own, to)); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(o registry.Options) error {
		list, err := registry.New(o).ForPull(parse(t, ref), nil)
		if err == nil {
			_, _, err = list[0].Manifest(t.Context(), "v1")
		}
		return err
	}
	absent := func(err error) bool {
		r := registry.Refusal(err)
		return r != nil && r.StatusCode == http.StatusNotFound
	}
	with := func(h registry.Host) registry.Options {
		return registry.Options{Hosts: map[string]registry.Host{host: h}}
	}
	for _, c := range []struct {
		what string
		o    registry.Options
		want string // empty: the registry answers
	}{
		{"nothing", registry.Options{}, "certificate signed by unknown authority"},
		{"only the authority", with(registry.Host{CA: ca}), "certificate required"},
		{"all", with(registry.Host{CA: ca, Cert: cert, Key: key}), ""},
		{"no verification", with(registry.Host{Insecure: true, Cert: cert, Key: key}), ""},
		{"an authority that is none", with(registry.Host{CA: key}), "no certificate in it"},
		{"an authority that is not there", with(registry.Host{CA: "/nowhere"}), "reading certificate authorities"},
		{"a key that is not there", with(registry.Host{Cert: cert, Key: "/nowhere"}), "reading the client certificate"},
		{"an empty folder", registry.Options{CertsDir: certs}, "certificate signed by unknown authority"},
	} {
		err := ask(c.o)
		if c.want == "" && !absent(err) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.what, err)
		}
		if c.want != "" && registry.MayPass(err) {
			t.Errorf("%s: would be tried again", c.what)
		}
	}
	folder := registry.Options{CertsDir: certs}
	link(ca, "any.crt")
	if err := ask(folder); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("folder with the authority: %v", err)
	}
	link(cert, "me.cert")
	if err := ask(folder); err == nil || !strings.Contains(err.Error(), "missing key me.key for client certificate") {
		t.Errorf("folder without the key: %v", err)
	}
	link(key, "me.key")
	if err := ask(folder); !absent(err) {
		t.Errorf("whole folder: %v", err)
	}
	if err := registry.New(folder).Login(t.Context(), &mobyregistry.AuthConfig{ServerAddress: "https://" + host}); err != nil {
		t.Errorf("login: %v", err)
	}
	_ = os.Remove(filepath.Join(own, "me.cert"))
	if err := ask(folder); err == nil || !strings.Contains(err.Error(), "missing client certificate me.cert for key") {
		t.Errorf("folder without the certificate: %v", err)
	}
}

// TestPlainHTTPOnlyByConfiguration: private addresses are no exception, nor are
// redirections.
func TestPlainHTTPOnlyByConfiguration(t *testing.T) {
	p := newRegistry(t)
	put(t, p.Address, "team/app:v1")
	listener, err := net.Listen("tcp", net.JoinHostPort(private(t), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	ref := listener.Addr().String() + "/team/app"
	_, _, err = sources(t, registry.Options{}, ref, nil)[0].Manifest(t.Context(), "v1")
	if err == nil || !strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") || strings.Contains(err.Error(), "http://") {
		t.Errorf("got %v", err)
	}
	if _, _, err = sources(t, registry.Options{Hosts: map[string]registry.Host{listener.Addr().String(): {Insecure: true}}}, ref, nil)[0].Manifest(t.Context(), "v1"); err != nil {
		t.Error("insecure:", err)
	}
	if _, _, err = sources(t, registry.Options{}, p.Address+"/team/app", nil)[0].Manifest(t.Context(), "v1"); err != nil {
		t.Error("this host:", err)
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	p := newRegistry(t)
	img := put(t, p.Address, "team/app:v1")
	digest := must(img.Digest()).String()
	replace := func(old, text string) func([]byte) []byte {
		return func(b []byte) []byte { return []byte(strings.Replace(string(b), old, text, 1)) }
	}
	for what, c := range map[string]struct {
		fault faultproxy.Fault
		ref   string
		want  string
	}{
		"other bytes":    {faultproxy.Fault{Rewrite: replace("{", "{ ")}, digest, "manifest verification failed for digest " + digest},
		"not JSON":       {faultproxy.Fault{Status: 200, Body: "<html>"}, "v1", "the manifest is not JSON"},
		"too long":       {faultproxy.Fault{Status: 200, Body: strings.Repeat(" ", 4<<20) + "{}"}, "v1", "more than 4194304 bytes"},
		"another type":   {faultproxy.Fault{Header: http.Header{"Content-Type": {"application/vnd.oci.image.index.v1+json"}}}, "v1", "mediaType in manifest should be"},
		"no image":       {faultproxy.Fault{Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: "{}"}, "v1", `unsupported manifest media type "text/html"`},
		"two in one":     {faultproxy.Fault{Rewrite: replace("{", `{"manifests":[],`)}, "v1", "both a manifest and an index"},
		"truncated":      {faultproxy.Fault{Truncate: true}, "v1", "the manifest is not JSON"},
		"cut connection": {faultproxy.Fault{Cut: 10}, "v1", "unexpected EOF"},
	} {
		t.Run(what, func(t *testing.T) {
			c.fault.Path = "/manifests/"
			p.Set(c.fault)
			_, _, err := sources(t, registry.Options{}, p.Address+"/team/app", nil)[0].Manifest(t.Context(), c.ref)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("schema 1", func(t *testing.T) {
		p.Set(faultproxy.Fault{Path: "/manifests/", Status: 200, Header: http.Header{"Content-Type": {"application/vnd.docker.distribution.manifest.v1+prettyjws"}}, Body: `{"schemaVersion":1}`})
		_, d, err := sources(t, registry.Options{}, p.Address+"/team/app", nil)[0].Manifest(t.Context(), "v1")
		if err != nil || !registry.IsSchema1(d) {
			t.Errorf("got %v, %v", d, err)
		}
	})
	t.Run("without a type", func(t *testing.T) {
		p.Set(faultproxy.Fault{Path: "/manifests/", Header: http.Header{"Content-Type": {"application/json"}}})
		_, d, err := sources(t, registry.Options{}, p.Address+"/team/app", nil)[0].Manifest(t.Context(), "v1")
		if err != nil || d.MediaType != string(must(img.MediaType())) {
			t.Errorf("got %v, %v", d, err)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	p := newRegistry(t)
	repository := func() *registry.Repository { return sources(t, registry.Options{}, p.Address+"/a", nil)[0] }
	for header, want := range map[string][2]time.Duration{
		"7": {7 * time.Second, 7 * time.Second},
		time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat): {80 * time.Second, 90 * time.Second},
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat):       {0, 0},
		"soon": {0, 0}, "-4": {0, 0}, "": {0, 0},
	} {
		p.Set(faultproxy.Fault{Path: "/manifests/", Status: 429, Header: http.Header{"Retry-After": {header}}, Body: `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`})
		_, _, err := repository().Manifest(t.Context(), "v1")
		if got := registry.RetryAfter(err); got < want[0] || got > want[1] {
			t.Errorf("%q: %s", header, got)
		}
		if got := registry.Diagnosis(registry.Refusal(err)); got != "toomanyrequests: slow down" || !registry.MayPass(err) {
			t.Errorf("%q: %s", header, got)
		}
	}
}

func TestLimits(t *testing.T) {
	p := newRegistry(t)
	for header, want := range map[string]registry.Limit{
		"100;w=21600": {After: time.Minute, Requests: 100, In: 6 * time.Hour},
		"100":         {After: time.Minute}, "x;w=y": {After: time.Minute}, "-1;w=60": {After: time.Minute}, "99999999999;w=60": {After: time.Minute},
	} {
		p.Set(faultproxy.Fault{Path: "/manifests/", Status: 429, Header: http.Header{"Retry-After": {"60"}, "Ratelimit-Limit": {header}}})
		_, _, err := sources(t, registry.Options{}, p.Address+"/a", nil)[0].Manifest(t.Context(), "v1")
		if got := registry.LimitOf(err); got != want {
			t.Errorf("%q: %+v", header, got)
		}
	}
	if got := registry.LimitOf(io.EOF); got != (registry.Limit{}) {
		t.Errorf("of another error: %+v", got)
	}
}

func TestTags(t *testing.T) {
	p := newRegistry(t)
	for _, tag := range []string{"b", "a", "c"} {
		put(t, p.Address, "team/app:"+tag)
	}
	tags, err := sources(t, registry.Options{}, p.Address+"/team/app", nil)[0].Tags(t.Context())
	if diff := cmp.Diff([]string{"a", "b", "c"}, tags); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestInfo(t *testing.T) {
	info := registry.New(registry.Options{Hosts: map[string]registry.Host{
		"docker.io":     {Mirrors: []string{"m.example", "http://n.example:5000/hub/"}},
		"plain.example": {Insecure: true}, "*": {Blocked: true},
	}}).Info()
	want := map[string]*mobyregistry.IndexInfo{
		"docker.io":     {Name: "docker.io", Mirrors: []string{"https://m.example/", "http://n.example:5000/hub/"}, Secure: true, Official: true},
		"plain.example": {Name: "plain.example", Mirrors: []string{}},
	}
	if diff := cmp.Diff(want, info.IndexConfigs); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want["docker.io"].Mirrors, info.Mirrors); diff != "" {
		t.Error(diff)
	}
	var cidrs []string
	for _, p := range info.InsecureRegistryCIDRs {
		cidrs = append(cidrs, p.String())
	}
	if diff := cmp.Diff([]string{"127.0.0.0/8", "::1/128"}, cidrs); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseMirror(f *testing.F) {
	for _, text := range []string{"m.example", "https://m.example:5000/p/q/", "http://[::1]:5000", "ftp://x", "//", "a@b", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := registry.ParseMirror(text)
		if err == nil && (m.Host == "" || strings.ContainsAny(m.Host, "/@?#") || strings.HasPrefix(m.Prefix, "/")) {
			t.Errorf("%q: %+v", text, m)
		}
	})
}

// TestReferrers as the registry lists them, or as a tag does where it cannot.
func TestReferrers(t *testing.T) {
	const kind = "application/vnd.example.signature"
	subject := digest.FromString("subject")
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":%q,"artifactType":%q},{"digest":%q,"artifactType":"text/plain"},{"digest":"sha256:x","artifactType":%q}]}`,
		digest.FromString("a"), kind, digest.FromString("b"), kind)
	for what, c := range map[string]struct {
		faults []faultproxy.Fault
		want   string
	}{
		"listed":    {[]faultproxy.Fault{{Path: "/referrers/" + subject.String(), Status: 200, Body: index}}, "a"},
		"tagged":    {[]faultproxy.Fault{{Path: "/referrers/", Status: 404}, {Path: "/manifests/sha256-" + subject.Encoded(), Status: 200, Body: index}}, "a"},
		"nothing":   {[]faultproxy.Fault{{Path: "/referrers/", Status: 400}}, ""},
		"a fault":   {[]faultproxy.Fault{{Path: "/referrers/", Status: 502}}, "502"},
		"no JSON":   {[]faultproxy.Fault{{Path: "/referrers/", Status: 200, Body: "x"}}, "the index is not JSON"},
		"very long": {[]faultproxy.Fault{{Path: "/referrers/", Status: 200, Body: strings.Repeat(" ", 5<<20)}}, "more than 4194304 bytes"},
	} {
		p := newRegistry(t)
		p.Set(c.faults...)
		list, err := sources(t, registry.Options{}, p.Address+"/team/app", nil)[0].Referrers(t.Context(), subject, kind)
		switch {
		case c.want == "a":
			if err != nil || len(list) != 1 || list[0].Digest != digest.FromString("a") {
				t.Errorf("%s: %v, %v", what, list, err)
			}
		case c.want == "":
			if err != nil || len(list) != 0 {
				t.Errorf("%s: %v, %v", what, list, err)
			}
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, want %s", what, err, c.want)
		}
	}
}
