package verify

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is what is signed here.
var image = digest.FromString("an image")

// shelf is a repository in memory.
type shelf struct {
	name      string
	manifests map[string][]byte
	blobs     map[digest.Digest][]byte
	referrers []ocispec.Descriptor
	fault     error // of all that is asked
	asked     int
}

func newShelf(name string) *shelf {
	return &shelf{name: name, manifests: map[string][]byte{}, blobs: map[digest.Digest][]byte{}}
}

func (s *shelf) Manifest(_ context.Context, ref string) ([]byte, ocispec.Descriptor, error) {
	s.asked++
	body, ok := s.manifests[ref]
	switch {
	case s.fault != nil:
		return nil, ocispec.Descriptor{}, s.fault
	case !ok:
		return nil, ocispec.Descriptor{}, fmt.Errorf("asking: %w", &transport.Error{StatusCode: http.StatusNotFound})
	}
	return body, ocispec.Descriptor{}, nil
}

func (s *shelf) Blob(_ context.Context, d ocispec.Descriptor, _ int64) (io.ReadCloser, int64, error) {
	s.asked++
	body, ok := s.blobs[d.Digest]
	if !ok {
		return nil, 0, &transport.Error{StatusCode: http.StatusNotFound}
	}
	return io.NopCloser(bytes.NewReader(body)), 0, nil
}

func (s *shelf) Referrers(context.Context, digest.Digest, string) ([]ocispec.Descriptor, error) {
	return s.referrers, s.fault
}

func (s *shelf) String() string { return s.name }

// signature is one to be put on a shelf.
type signature struct {
	payload   []byte
	encoded   string
	mediaType string
}

// put puts a manifest with signatures under a tag or digest.
func (s *shelf) put(t *testing.T, ref string, signatures ...signature) {
	t.Helper()
	var m ocispec.Manifest
	for _, one := range signatures {
		d := digest.FromBytes(one.payload)
		s.blobs[d] = one.payload
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: one.mediaType, Digest: d, Size: int64(len(one.payload)), Annotations: map[string]string{signatureKey: one.encoded}})
	}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	s.manifests[ref] = body
}

// tagOf is where cosign puts the signatures of a digest.
func tagOf(d digest.Digest) string { return "sha256-" + d.Encoded() + ".sig" }

// signer signs what cosign's payload says by default, with changes.
type signer struct {
	key  crypto.Signer
	file string // with the public key
}

func newSigner(t *testing.T, key crypto.Signer) signer {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, writePEM(t, "PUBLIC KEY", der)}
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func newECDSA(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (s signer) sign(t *testing.T, payload string) signature {
	t.Helper()
	message, options := []byte(payload), crypto.SignerOpts(crypto.SHA256)
	if _, ok := s.key.(ed25519.PrivateKey); ok {
		options = crypto.Hash(0)
	} else {
		hash := crypto.SHA256.New()
		hash.Write(message)
		message = hash.Sum(nil)
	}
	raw, err := s.key.Sign(rand.Reader, message, options)
	if err != nil {
		t.Fatal(err)
	}
	return signature{[]byte(payload), base64.StdEncoding.EncodeToString(raw), signatureLayer}
}

func statementOf(kind, name string, d digest.Digest) string {
	return fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":%q},"optional":{"by":"me"}}`, name, d, kind)
}

func named(t *testing.T, text string) reference.Named {
	t.Helper()
	ref, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		t.Fatal(err)
	}
	return reference.TagNameOnly(ref)
}

func signedBy(match string, files ...string) Policy {
	return Policy{Rules: []Rule{{Match: match, Accept: Signed, Keys: files}}}
}

func TestTheLongestMatchCounts(t *testing.T) {
	p := Policy{Rules: []Rule{
		{Match: AnyOther, Accept: Reject},
		{Match: "docker.io", Accept: Digest},
		{Match: "docker.io/library/debian", Accept: Any},
		{Match: "registry.example", Accept: Any},
		{Match: "registry.example/team", Accept: Reject},
	}}
	for name, want := range map[string]string{
		"debian":                              "",
		"debian:12":                           "",
		"debian@" + image.String():            "",
		"debianish":                           "policy 2 ",
		"index.docker.io/library/debian":      "",
		"somebody/debian":                     "policy 2 ",
		"somebody/debian@" + image.String():   "",
		"somebody/debian:1@" + image.String(): "",
		"registry.example/app":                "",
		"registry.example/teams/app":          "",
		"registry.example/team":               "policy 5 ",
		"registry.example/team/app":           "policy 5 ",
		"Registry.Example/team/app":           "policy 5 ",
		"registry.example:5000/app":           "policy 1 ",
		"elsewhere.example/debian":            "policy 1 ",
	} {
		err := p.BeforeAsking(named(t, name))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case want != "" && (!errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), " is refused by "+want)):
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if err := (Policy{}).BeforeAsking(named(t, "debian")); err != nil {
		t.Errorf("without a policy: %v", err)
	}
}

func TestArchives(t *testing.T) {
	for _, c := range []struct {
		rules []Rule
		want  string
	}{
		{nil, ""},
		{[]Rule{{Match: "docker.io", Accept: Reject}}, ""},
		{[]Rule{{Match: AnyOther, Accept: Any}}, ""},
		{[]Rule{{Match: AnyOther, Accept: Digest}}, "policy 1"},
		{[]Rule{{Match: AnyOther, Accept: Signed}}, "policy 1"},
		{[]Rule{{Match: AnyOther, Accept: Reject}, {Match: Archive, Accept: Any}}, ""},
		{[]Rule{{Match: AnyOther, Accept: Any}, {Match: Archive, Accept: Reject}}, "policy 2"},
	} {
		err := Policy{c.rules}.Archive()
		if c.want == "" && err != nil || c.want != "" && (!errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v, want %q", c.rules, err, c.want)
		}
	}
}

func TestKindsOfKeysAndPlaces(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modulus, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	statement := statementOf(statementType, "index.docker.io/library/app", image)
	byHash := newSigner(t, edwards)
	sum := sha512.Sum512([]byte(statement))
	raw, err := edwards.Sign(rand.Reader, sum[:], crypto.SHA512)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := newSigner(t, modulus)
	pkcs1.file = writePEM(t, "RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&modulus.PublicKey))
	for kind, c := range map[string]struct {
		signer
		signature
	}{
		"ECDSA":     {signer: newSigner(t, newECDSA(t, elliptic.P256()))},
		"Ed25519":   {signer: newSigner(t, edwards)},
		"Ed25519ph": {byHash, signature{[]byte(statement), base64.StdEncoding.EncodeToString(raw), signatureLayer}},
		"RSA":       {signer: newSigner(t, modulus)},
		"RSA PKCS1": {signer: pkcs1},
	} {
		made := c.signature
		if made.encoded == "" {
			made = c.sign(t, statement)
		}
		other, stranger := newSigner(t, newECDSA(t, elliptic.P256())), newSigner(t, newECDSA(t, elliptic.P256()))
		tagged, referred := newShelf("tagged"), newShelf("referred")
		// Of several signatures and several keys one of each is enough.
		tagged.put(t, tagOf(image), signature{payload: []byte("a certificate"), mediaType: "text/plain"}, stranger.sign(t, statement), made)
		where := digest.FromString("somewhere")
		referred.put(t, where.String(), made)
		referred.referrers = []ocispec.Descriptor{{Digest: digest.FromString("gone")}, {Digest: where}}
		for _, from := range []*shelf{tagged, referred} {
			err := signedBy("docker.io", other.file, c.file).Image(t.Context(), named(t, "app:v1"), image, []Source{from})
			if err != nil {
				t.Errorf("%s, %s: %v", kind, from, err)
			}
			err = signedBy("docker.io", newSigner(t, newECDSA(t, elliptic.P256())).file).Image(t.Context(), named(t, "app:v1"), image, []Source{from})
			if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "none of the policy's keys made it") {
				t.Errorf("%s, %s, with another key: %v", kind, from, err)
			}
		}
	}
}

// TestSignaturesOfSigstore: the vectors were made by sigstore's own library, which is
// cosign's.
func TestSignaturesOfSigstore(t *testing.T) {
	body, err := os.ReadFile("testdata/sigstore.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ Kind, Payload, Signature, Key string }
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatal(err)
	}
	want := identity{digest: "sha256:" + digest.Digest(strings.Repeat("0", 64)), repository: "docker.io/library/debian", tag: "12"}
	for _, v := range list {
		keys, err := parseKeys([]byte(v.Key))
		if err == nil {
			err = check([]byte(v.Payload), v.Signature, keys, want)
		}
		if err != nil {
			t.Errorf("%s: %v", v.Kind, err)
		}
	}
	if len(list) != 4 {
		t.Errorf("%d vectors", len(list))
	}
}

func TestNamesInSignatures(t *testing.T) {
	key := newSigner(t, newECDSA(t, elliptic.P256()))
	digested := "registry.example/team/app@" + image.String()
	for _, c := range []struct{ signed, pulled, as, want string }{
		{"registry.example/team/app", "registry.example/team/app:v1", "", ""},
		{"registry.example/team/app:v1", "registry.example/team/app:v1", "", ""},
		{"registry.example/team/app:v1", digested, "", ""},
		{"registry.example/team/app:v1", "registry.example/team/app:v2", "", "it is for the tag v1, not for v2"},
		{"registry.example/team/other", "registry.example/team/app:v1", "", "it is for registry.example/team/other, not for registry.example/team/app"},
		{"registry.example/team/other", digested, "", "it is for registry.example/team/other"},
		{"team/app", "registry.example/team/app:v1", "", "it is for docker.io/team/app"},
		{"", "registry.example/team/app:v1", "", `it is for the invalid name ""`},
		{"docker.io/library/app", "registry.example/team/app:v1", "docker.io/library", ""},
		{"app:v1", "registry.example/team/app:v1", "docker.io/library", ""},
		{"registry.example/team/app", "registry.example/team/app:v1", "docker.io/library", "not for docker.io/library/app"},
	} {
		from := newShelf("here")
		from.put(t, tagOf(image), key.sign(t, statementOf(statementType, c.signed, image)))
		p := signedBy("registry.example/team", key.file)
		p.Rules[0].SignedAs = c.as
		err := p.Image(t.Context(), named(t, c.pulled), image, []Source{from})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%+v: %v", c, err)
		case c.want != "" && (!errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestSignaturesThatDoNotHold(t *testing.T) {
	key := newSigner(t, newECDSA(t, elliptic.P256()))
	good := statementOf(statementType, "registry.example/app", image)
	changed := func(change func(*signature)) signature {
		s := key.sign(t, good)
		change(&s)
		return s
	}
	for want, s := range map[string]signature{
		"none of the policy's keys made it":             changed(func(s *signature) { s.payload = append(s.payload, ' ') }),
		"it is not base64":                              changed(func(s *signature) { s.encoded = "§" }),
		"it is not base64 ":                             changed(func(s *signature) { s.encoded = "" }),
		"it is of \"" + digest.FromString("b").String(): key.sign(t, statementOf(statementType, "registry.example/app", digest.FromString("b"))),
		`it is a "atomic container signature"`:          key.sign(t, statementOf("atomic container signature", "registry.example/app", image)),
		"what it signs is not JSON":                     key.sign(t, "not JSON"),
		`it is a ""`:                                    key.sign(t, "{}"),
		"at most 65536 are read":                        key.sign(t, good+strings.Repeat(" ", maxPayload)),
	} {
		from := newShelf("registry.example/app")
		from.put(t, tagOf(image), s)
		err := signedBy("registry.example", key.file).Image(t.Context(), named(t, "registry.example/app"), image, []Source{from})
		if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%v, want %s", err, want)
			continue
		}
		for _, part := range []string{"registry.example/app:latest is refused by policy 1 of the configuration (match = \"registry.example\", accept = \"signed\")", "no signature of " + image.String() + " holds", key.file} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v does not say %s", err, part)
			}
		}
		// One that holds is enough.
		from.put(t, tagOf(image), s, key.sign(t, good))
		if err := signedBy("registry.example", key.file).Image(t.Context(), named(t, "registry.example/app"), image, []Source{from}); err != nil {
			t.Errorf("beside %s: %v", want, err)
		}
	}

	empty := newShelf("empty")
	err := signedBy(AnyOther, key.file).Image(t.Context(), named(t, "app"), image, []Source{empty})
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), image.String()+" has no signature") {
		t.Errorf("without signatures: %v", err)
	}
	// The manifest of the signatures is what the registry makes of it.
	for _, body := range []string{"", "[]", `{"layers":[{"mediaType":"` + signatureLayer + `","digest":"sha256:x"}]}`, `{"layers":[{"mediaType":"` + signatureLayer + `","digest":"` + image.String() + `","size":1}]}`} {
		empty.manifests[tagOf(image)] = []byte(body)
		if err := signedBy(AnyOther, key.file).Image(t.Context(), named(t, "app"), image, []Source{empty}); !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: %v", body, err)
		}
	}
	// A blob that is another one than its digest says is not what was signed.
	payload := key.sign(t, good)
	swapped := newShelf("swapped")
	swapped.put(t, tagOf(image), payload)
	swapped.blobs[digest.FromBytes(payload.payload)] = bytes.Repeat([]byte("x"), len(payload.payload))
	err = signedBy(AnyOther, key.file).Image(t.Context(), named(t, "registry.example/app"), image, []Source{swapped})
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "it is not what its digest says") {
		t.Errorf("a swapped blob: %v", err)
	}
}

func TestSignaturesAreBounded(t *testing.T) {
	key, other := newSigner(t, newECDSA(t, elliptic.P256())), newSigner(t, newECDSA(t, elliptic.P256()))
	from := newShelf("flooded")
	var flood []signature
	for i := range 2 * maxSignatures {
		flood = append(flood, other.sign(t, fmt.Sprint(i)))
	}
	from.put(t, tagOf(image), append(flood, key.sign(t, statementOf(statementType, "app", image)))...)
	for range 2 * maxSignatures {
		from.referrers = append(from.referrers, ocispec.Descriptor{Digest: digest.FromString("x")})
	}
	err := signedBy(AnyOther, key.file).Image(t.Context(), named(t, "app"), image, []Source{from, from})
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "and 96 more") {
		t.Errorf("got %v", err)
	}
	if from.asked > maxSignatures+4 {
		t.Errorf("asked %d times", from.asked)
	}
}

func TestFaultsAreNoRefusals(t *testing.T) {
	key := newSigner(t, newECDSA(t, elliptic.P256()))
	passing := &transport.Error{StatusCode: http.StatusServiceUnavailable, Request: &http.Request{URL: &url.URL{}}}
	good, faulty, empty := newShelf("good"), newShelf("faulty"), newShelf("empty")
	good.put(t, tagOf(image), key.sign(t, statementOf(statementType, "app", image)))
	faulty.fault = passing
	ask := func(ctx context.Context, from ...Source) error {
		return signedBy(AnyOther, key.file).Image(ctx, named(t, "app"), image, from)
	}
	if err := ask(t.Context(), empty, faulty); !errors.Is(err, passing) || errdefs.IsPermissionDenied(err) {
		t.Errorf("of the registry: %v", err)
	}
	if err := ask(t.Context(), faulty, good); err != nil {
		t.Errorf("of a mirror: %v", err)
	}
	if err := ask(t.Context(), empty, good); err != nil {
		t.Errorf("of a mirror without signatures: %v", err)
	}
	if err := ask(t.Context(), faulty, empty); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "faulty") {
		t.Errorf("of a mirror, and no signature: %v", err)
	}
	faulty.fault = &transport.Error{StatusCode: http.StatusForbidden}
	if err := ask(t.Context(), faulty); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a registry that does not show its signatures: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	faulty.fault = context.Canceled
	if err := ask(gone, faulty, good); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestFilesOfKeys(t *testing.T) {
	p256, p384 := newECDSA(t, elliptic.P256()), newECDSA(t, elliptic.P384())
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der := func(key any) []byte {
		body, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	private, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	exchange, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, body []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: body}))
	}
	two := block("PUBLIC KEY", der(&p256.PublicKey)) + "a comment\n" + block("PUBLIC KEY", der(edwards.Public()))
	keys, err := parseKeys([]byte(two))
	if err != nil || len(keys) != 2 {
		t.Errorf("two in one file: %v, %v", keys, err)
	}
	cases := map[string]string{
		"":                               "there is no public key (PEM) in it",
		"x":                              "there is no public key (PEM) in it",
		block("EC PRIVATE KEY", private): "it has a private key (EC PRIVATE KEY): the public key is wanted",
		block("CERTIFICATE", private):    "it has a CERTIFICATE: a PUBLIC KEY is wanted",
		block("PUBLIC KEY", der(&p384.PublicKey)):      "on the curve P-384: P-256 is wanted",
		block("PUBLIC KEY", der(&small.PublicKey)):     "an RSA key of 1024 bits: at least 2048 are wanted",
		block("PUBLIC KEY", []byte("x")):               "asn1",
		block("PUBLIC KEY", der(exchange.PublicKey())): "a key of an unknown kind (*ecdh.PublicKey)",
		two + block("CERTIFICATE", nil):                "it has a CERTIFICATE",
	}
	for _, text := range slices.Sorted(maps.Keys(cases)) {
		if _, err := parseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), cases[text]) {
			t.Errorf("%q: %v, want %s", text, err, cases[text])
		}
	}
	// Whoever configured them is told, and nothing comes in.
	missing := filepath.Join(t.TempDir(), "none.pem")
	err = signedBy(AnyOther, missing).Image(t.Context(), named(t, "app"), image, nil)
	if !errdefs.IsInternal(err) || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), "policy 1") {
		t.Errorf("a missing file: %v", err)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if keys, err := parseKeys(data); err == nil && len(keys) == 0 {
			t.Error("no keys and no error")
		}
	})
}
