package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/davit-engine/davit/test/faultproxy"
	"github.com/davit-engine/davit/test/private"
)

// signer signs images as cosign does.
type signer struct {
	*testing.T
	key  *ecdsa.PrivateKey
	file string // with the public key
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{t, key, filepath.Join(t.TempDir(), "key.pem")}
	write(t, s.file, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	return s
}

// sign puts a signature beside an image, which says that it is for a name.
func (s *signer) sign(repository, digest, name string) {
	s.Helper()
	payload := fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, name, digest)
	sum := sha256.Sum256([]byte(payload))
	raw, err := s.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		s.Fatal(err)
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:       static.NewLayer([]byte(payload), "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(raw)},
	})
	if err != nil {
		s.Fatal(err)
	}
	push(s.T, repository+":"+strings.Replace(digest, ":", "-", 1)+".sig", img)
}

// policies are tables of the configuration.
func policies(list ...[3]string) string {
	var b strings.Builder
	for _, p := range list {
		fmt.Fprintf(&b, "[[policies]]\nmatch = %q\naccept = %q\n", p[0], p[1])
		if p[2] != "" {
			fmt.Fprintf(&b, "keys = [%q]\n", p[2])
		}
	}
	return b.String()
}

// TestPolicyOfImages: what is refused is refused with both clients, before any of its
// blobs is asked for, and leaves nothing; what the policy wants comes in.
func TestPolicyOfImages(t *testing.T) {
	t.Parallel()
	key, stranger := newSigner(t), newSigner(t)
	p := faulty(t)
	at := p.Address
	e := ownEngine(t, private.Options{Tables: impatient + policies(
		[3]string{at, "reject", ""}, [3]string{at + "/digests", "digest", ""}, [3]string{at + "/signed", "signed", key.file}, [3]string{at + "/open", "any", ""},
	)})
	img := archived(t, "content")
	digest := digestOf(t, img)
	for _, name := range []string{"closed/app:v1", "digests/app:v1", "signed/app:v1", "open/app:v1"} {
		push(t, at+"/"+name, img)
	}
	before := storedBlobs(t, e)
	refused := func(want string, args ...string) {
		t.Helper()
		p.Forget()
		for _, name := range []string{"docker", "davit"} {
			code := 1
			if args[0] == "run" || args[0] == "create" {
				code = 125 - 124*map[bool]int{true: 1}[args[0] == "create"]
			}
			newClient(t, name, e).fails(code, want, args...)
		}
		if n := len(p.Asked("GET", "/blobs/"+layerDigest(t, img))); n > 0 {
			t.Errorf("%q: blobs were asked for", args)
		}
		if got := storedBlobs(t, e); got != before {
			t.Errorf("%q left\n%s, before\n%s", args, got, before)
		}
	}
	refused("is refused by policy 1 of the configuration", "pull", at+"/closed/app:v1")
	if n := len(p.Asked("GET", "/")); n > 0 {
		t.Errorf("a registry that is rejected was asked %d times", n)
	}
	refused("is refused by policy 1 of the configuration", "pull", "-a", at+"/closed/app")
	refused("only references by digest are accepted: name the image "+at+"/digests/app@sha256:", "pull", at+"/digests/app:v1")
	refused(digest+" has no signature: have it signed with one of the keys "+key.file, "pull", at+"/signed/app:v1")
	refused("has no signature", "pull", at+"/signed/app@"+digest)
	refused("has no signature", "pull", "-a", at+"/signed/app")
	refused("has no signature", "run", "--rm", at+"/signed/app:v1", "true")
	refused("has no signature", "create", at+"/signed/app:v1", "true")
	for _, ref := range []string{at + "/closed/app:v1", at + "/digests/app:v1", at + "/signed/app:v1"} {
		if status := pullStatus(t, e, ref); status != 403 {
			t.Errorf("%s: status %d", ref, status)
		}
	}
	stranger.sign(at+"/signed/app", digest, at+"/signed/app")
	refused("none of the policy's keys made it", "pull", at+"/signed/app:v1")
	key.sign(at+"/signed/app", digest, at+"/signed/other")
	refused("it is for "+at+"/signed/other, not for "+at+"/signed/app", "pull", at+"/signed/app:v1")

	// A fault is no refusal, and no pass.
	p.Set(faultproxy.Fault{Path: ".sig", Status: 503})
	refused("503 Service Unavailable", "pull", at+"/signed/app:v1")
	if status := pullStatus(t, e, at+"/signed/app:v1"); status != 503 {
		t.Errorf("signatures that cannot be read: status %d", status)
	}
	p.Set()

	key.sign(at+"/signed/app", digest, at+"/signed/app")
	for _, name := range []string{"docker", "davit"} {
		c := newClient(t, name, e)
		for _, ref := range []string{at + "/signed/app:v1", at + "/signed/app@" + digest, at + "/digests/app@" + digest, at + "/open/app:v1"} {
			c.contains(c.ok("pull", ref), "Digest: "+digest)
			c.ok("rmi", ref)
		}
	}
}

// TestPolicyOfIndexesAndMirrors: a signature of an index is for all its platforms, one
// of a platform's manifest for that; and a mirror's images need signatures for the name
// that is pulled.
func TestPolicyOfIndexesAndMirrors(t *testing.T) {
	t.Parallel()
	key := newSigner(t)
	at, mirror := realRegistry(t), realRegistry(t)
	e := ownEngine(t, private.Options{Tables: fmt.Sprintf("[registries.\"docker.io\"]\nmirrors = [\"http://%s/hub\"]\n", mirror) +
		policies([3]string{"*", "signed", key.file}, [3]string{"archive:", "any", ""})})
	c := newClient(t, "davit", e)
	index := pushPlatforms(t, at+"/team/whole:v1")
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	key.sign(at+"/team/whole", digest.String(), at+"/team/whole")
	c.contains(c.ok("pull", at+"/team/whole:v1"), "Digest: "+digest.String())
	c.contains(c.ok("pull", "--platform", "linux/arm64", at+"/team/whole:v1"), "Digest: "+digest.String())

	pushPlatforms(t, at+"/team/part:v1")
	key.sign(at+"/team/part", digestOf(t, platformImage(t, "arm64")), at+"/team/part:v1")
	c.contains(c.ok("pull", "--platform", "linux/arm64", at+"/team/part:v1"), "Digest: "+digest.String())
	c.fails(1, digest.String()+" has no signature", "pull", "--platform", "linux/amd64", at+"/team/part:v1")

	img := archived(t, "mirrored")
	push(t, mirror+"/hub/team/app:v1", img)
	key.sign(mirror+"/hub/team/app", digestOf(t, img), mirror+"/hub/team/app")
	c.fails(1, "it is for "+mirror+"/hub/team/app, not for docker.io/team/app", "pull", "team/app:v1")
	key.sign(mirror+"/hub/team/app", digestOf(t, img), "index.docker.io/team/app")
	c.contains(c.ok("pull", "team/app:v1"), "Digest: "+digestOf(t, img))
}
