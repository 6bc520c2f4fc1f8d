package send

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distribution/reference"
	memory "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-engine/davit/core/registry"
	"github.com/davit-engine/davit/test/faultproxy"
	"github.com/davit-engine/davit/test/private"
)

// world is a registry behind a proxy, and a blob that is to go there.
type world struct {
	*testing.T
	*faultproxy.Proxy
	to   *registry.Repository
	blob ocispec.Descriptor
	body []byte
	said []Status
}

const size = 1 << 20

func newWorld(t *testing.T, configure func(*registry.Options)) *world {
	t.Helper()
	w := &world{T: t, Proxy: faultproxy.New(faultproxy.Resumable(memory.New(memory.Logger(log.New(io.Discard, "", 0)))))}
	t.Cleanup(w.Close)
	named, err := reference.ParseNormalizedNamed(w.Address + "/team/app")
	if err != nil {
		t.Fatal(err)
	}
	var o registry.Options
	if configure != nil {
		configure(&o)
	}
	if w.to, err = registry.New(o).ForPush(named, nil); err != nil {
		t.Fatal(err)
	}
	w.use(bytes.Repeat([]byte(t.Name()), size/len(t.Name())+1)[:size])
	return w
}

func (w *world) use(body []byte) {
	w.body = body
	w.blob = ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(len(body))}
}

func (w *world) send(ctx context.Context, from string) (Outcome, error) {
	w.Helper()
	w.Forget()
	w.said = nil
	return Options{Attempts: 3, Backoff: time.Millisecond}.Blob(ctx, w.to, w.blob, bytes.NewReader(w.body), from, func(s Status) { w.said = append(w.said, s) })
}

// arrives wants the blob at the registry, as it is.
func (w *world) arrives(want Outcome) {
	w.Helper()
	outcome, err := w.send(w.Context(), "")
	if err != nil || outcome != want {
		w.Fatalf("outcome %d, %v, want %d", outcome, err, want)
	}
	w.Set()
	body, _, err := w.to.Blob(w.Context(), w.blob, 0)
	if err != nil {
		w.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil || !bytes.Equal(got, w.body) {
		w.Errorf("%d bytes came, %v", len(got), err)
	}
}

// patches are the ranges of what was sent, "" for all of it.
func (w *world) patches() (list []string) {
	for _, r := range w.Asked(http.MethodPatch, "") {
		list = append(list, r.Header.Get("Content-Range"))
	}
	return list
}

func TestABlobIsSentOnce(t *testing.T) {
	w := newWorld(t, nil)
	w.arrives(Sent)
	if last := w.said[len(w.said)-1]; last.Offset != size {
		t.Errorf("told last: %+v", last)
	}
	w.arrives(Existed)
	if n := len(w.Asked(http.MethodPost, "")); n != 0 {
		t.Errorf("%d uploads of what is there", n)
	}
	w.use(nil)
	w.Set(faultproxy.Fault{Method: http.MethodHead, Status: 404})
	w.arrives(Sent)
}

func TestABlobIsMounted(t *testing.T) {
	w := newWorld(t, nil)
	w.Set(faultproxy.Fault{Method: http.MethodPost, Status: http.StatusCreated})
	if outcome, err := w.send(t.Context(), "team/other"); err != nil || outcome != Mounted {
		t.Errorf("outcome %d, %v", outcome, err)
	}
	if asked := w.Asked(http.MethodPost, "from=team%2Fother"); len(asked) != 1 || !strings.Contains(asked[0].Path, "mount=sha256") {
		t.Errorf("asked %+v", asked)
	}
	// A registry that does not do so, or does not show the other, is sent the blob.
	for _, status := range []int{http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed} {
		w.use([]byte(http.StatusText(status)))
		w.Set(faultproxy.Fault{Method: http.MethodPost, Status: status, Times: 1})
		if outcome, err := w.send(t.Context(), "team/other"); err != nil || outcome != Sent {
			t.Errorf("%d: outcome %d, %v", status, outcome, err)
		}
	}
}

func TestTheRestIsSent(t *testing.T) {
	w := newWorld(t, nil)
	// Each piece that arrives gives new attempts.
	w.Set(faultproxy.Fault{Method: http.MethodPatch, CutSent: 200_000, Times: 4})
	w.arrives(Sent)
	if got := strings.Join(w.patches(), " "); got != " 200000-1048575 400000-1048575 600000-1048575 800000-1048575" {
		t.Errorf("sent %s", got)
	}

	// The answer got lost: everything is there already.
	w.use(bytes.Repeat([]byte("y"), size))
	w.Set(faultproxy.Fault{Method: http.MethodPut, Close: true, Times: 1})
	w.arrives(Sent)
	if n := len(w.patches()); n != 1 {
		t.Errorf("sent %d times", n)
	}
}

func TestUploadsThatBeginAgain(t *testing.T) {
	w := newWorld(t, nil)
	cut := faultproxy.Fault{Method: http.MethodPatch, CutSent: 100_000, Times: 1}
	for what, faults := range map[string][]faultproxy.Fault{
		"forgotten":                  {cut, {Method: http.MethodGet, Path: "/uploads/", Status: 404, Times: 1}},
		"without a range":            {cut, {Method: http.MethodGet, Path: "/uploads/", Header: http.Header{"Range": {"x"}}, Times: 1}},
		"more than there is":         {cut, {Method: http.MethodGet, Path: "/uploads/", Header: http.Header{"Range": {"0-1048576"}}, Times: 1}},
		"a wrong offset":             {cut, {Method: http.MethodGet, Path: "/uploads/", Header: http.Header{"Range": {"0-50000"}}, Times: 1}},
		"spoilt in putting together": {cut, {Method: http.MethodPut, Status: 400, Body: `{"errors":[{"code":"DIGEST_INVALID"}]}`, Times: 1}},
	} {
		w.use([]byte(what + string(w.body[len(what):])))
		w.Set(faults...)
		w.arrives(Sent)
		patches := w.patches()
		if last := patches[len(patches)-1]; last != "" {
			t.Errorf("%s: sent %q", what, patches)
		}
	}
}

func TestFaultsOfUploads(t *testing.T) {
	w := newWorld(t, func(o *registry.Options) { o.Silence = 200 * time.Millisecond })
	for what, c := range map[string]struct {
		fault faultproxy.Fault
		tries int
		want  string
	}{
		"refused":     {faultproxy.Fault{Method: http.MethodPost, Status: 403, Body: `{"errors":[{"code":"DENIED","message":"no"}]}`}, 1, "DENIED: no"},
		"too large":   {faultproxy.Fault{Method: http.MethodPatch, Status: 413}, 1, "413"},
		"broken":      {faultproxy.Fault{Method: http.MethodPatch, Close: true}, 3, "Patch \"http://"},
		"busy":        {faultproxy.Fault{Method: http.MethodPost, Status: 503}, 3, "503"},
		"later":       {faultproxy.Fault{Method: http.MethodPost, Status: 429, Header: http.Header{"Retry-After": {"3600"}}}, 1, "429"},
		"silent":      {faultproxy.Fault{Method: http.MethodPatch, Hang: true}, 3, "the registry is silent"},
		"silent head": {faultproxy.Fault{Method: http.MethodHead, Hang: true}, 3, "the registry is silent"},
		"nowhere":     {faultproxy.Fault{Method: http.MethodPost, Status: 202}, 1, "does not say where the upload goes on"},
		"the digest":  {faultproxy.Fault{Method: http.MethodPut, Status: 400, Body: `{"errors":[{"code":"DIGEST_INVALID"}]}`}, 1, "DIGEST_INVALID"},
	} {
		w.Set(c.fault)
		_, err := w.send(t.Context(), "")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", what, err, c.want)
		}
		if n := len(w.Asked(c.fault.Method, "")); n != c.tries {
			t.Errorf("%s: %d attempts, want %d", what, n, c.tries)
		}
		if what != "nowhere" && len(w.Asked(http.MethodPost, "")) > 0 && c.fault.Method != http.MethodPost && len(w.Asked(http.MethodDelete, "/uploads/")) == 0 {
			t.Errorf("%s: the upload was not called off", what)
		}
	}
}

// failing is a blob of which only the beginning can be read: enough that the request
// has been sent by then.
type failing struct{}

func (failing) ReadAt(p []byte, offset int64) (int, error) {
	if offset > 0 {
		return 0, errors.New("the disk is broken")
	}
	return len(p), nil
}

func TestABlobThatCannotBeReadIsNotTheRegistrysFault(t *testing.T) {
	w := newWorld(t, nil)
	_, err := Options{Attempts: 3, Backoff: time.Millisecond}.Blob(t.Context(), w.to, w.blob, failing{}, "", func(Status) {})
	if err == nil || !strings.Contains(err.Error(), "the disk is broken") {
		t.Errorf("got %v", err)
	}
	// The registry may hear of it after it was given up here.
	for deadline := time.Now().Add(private.Patience(20 * time.Second)); len(w.patches()) == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := len(w.patches()); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func TestALeftUploadIsCalledOff(t *testing.T) {
	w := newWorld(t, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	w.Set(faultproxy.Fault{Method: http.MethodPatch, Hang: true})
	time.AfterFunc(100*time.Millisecond, func() { cancel(gone) })
	if _, err := w.send(ctx, ""); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	said := len(w.said)
	if n := len(w.Asked(http.MethodDelete, "/uploads/")); n != 1 && len(w.patches()) > 0 {
		t.Errorf("called off %d times", n)
	}
	w.Set()
	if len(w.said) != said {
		t.Error("told after the end")
	}
}

// TestWaits without waiting.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		b := &blob{tell: func(s Status) { waits = append(waits, s.Wait) }}
		if err := b.pause(t.Context(), 2500*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if len(waits) != 3 || waits[0] != 2500*time.Millisecond || waits[2] != 500*time.Millisecond {
			t.Errorf("told %v", waits)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.pause(ctx, time.Hour); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
