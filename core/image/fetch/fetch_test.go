package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	ctrlog "github.com/containerd/log"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	memory "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"

	"github.com/davit-engine/davit/core/image/fetch"
	"github.com/davit-engine/davit/core/registry"
	"github.com/davit-engine/davit/test/faultproxy"
)

// size of the blob that is fetched.
const size = 1<<20 + 17

// world is a registry with one blob behind a faulty network, and a content store.
type world struct {
	*testing.T
	proxy   *faultproxy.Proxy
	blob    ocispec.Descriptor
	bytes   []byte
	store   content.Store
	fetcher *fetch.Fetcher
	ctx     context.Context
	silence time.Duration
}

func TestMain(m *testing.M) {
	_ = ctrlog.SetLevel("error") // file systems without fsverity are no news
	os.Exit(m.Run())
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := newWorldOf(t, memory.New(memory.Logger(log.New(io.Discard, "", 0))))
	w.bytes = make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(w.bytes)
	w.blob = ocispec.Descriptor{Digest: digest.FromBytes(w.bytes), Size: size}
	repository, err := name.NewRepository(w.proxy.Address + "/team/app")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteLayer(repository, static.NewLayer(w.bytes, types.DockerLayer)); err != nil {
		t.Fatal(err)
	}
	w.proxy.Forget()
	return w
}

// newWorldOf is newWorld with another registry.
func newWorldOf(t *testing.T, handler http.Handler) *world {
	t.Helper()
	w := &world{T: t, proxy: faultproxy.New(handler), silence: 5 * time.Second, ctx: namespaces.WithNamespace(t.Context(), "test")}
	t.Cleanup(w.proxy.Close)
	w.open(t.TempDir())
	return w
}

func (w *world) open(dir string) {
	w.Helper()
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		w.Fatal(err)
	}
	bolt, err := bbolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bbolt.Options{NoSync: true, Timeout: time.Second})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = bolt.Close() })
	db := metadata.NewDB(bolt, blobs, nil)
	if err := db.Init(context.Background()); err != nil {
		w.Fatal(err)
	}
	w.store = db.ContentStore()
	w.fetcher = fetch.New(fetch.Options{Store: w.store, Backoff: time.Millisecond, Attempts: 3})
}

// sources are the proxy, or mirrors and then it.
func (w *world) sources(mirrors ...string) []*registry.Repository {
	w.Helper()
	named, err := reference.ParseNormalizedNamed(w.proxy.Address + "/team/app")
	if err != nil {
		w.Fatal(err)
	}
	hosts := map[string]registry.Host{w.proxy.Address: {Mirrors: mirrors}}
	list, err := registry.New(registry.Options{Hosts: hosts, Silence: w.silence}).ForPull(named, nil)
	if err != nil {
		w.Fatal(err)
	}
	return list
}

func (w *world) fetch(ctx context.Context, tell func(fetch.Status)) error {
	if tell == nil {
		tell = func(fetch.Status) {}
	}
	return w.fetcher.Fetch(ctx, w.blob, w.sources(), tell)
}

// whole fails unless the blob is in the store, and no ingest.
func (w *world) whole() {
	w.Helper()
	body, err := content.ReadBlob(w.ctx, w.store, w.blob)
	if err != nil || !bytes.Equal(body, w.bytes) {
		w.Fatalf("the blob is not what was sent: %d bytes, %v", len(body), err)
	}
	w.noIngest()
}

func (w *world) noIngest() {
	w.Helper()
	list, err := w.store.ListStatuses(w.ctx)
	if err != nil || len(list) > 0 {
		w.Fatalf("ingests are left: %v %v", list, err)
	}
}

func (w *world) absent() {
	w.Helper()
	if _, err := w.store.Info(w.ctx, w.blob.Digest); err == nil {
		w.Error("the blob is in the store")
	}
}

// here is how many bytes an ingest keeps.
func (w *world) here() int64 {
	w.Helper()
	status, err := w.store.Status(w.ctx, fetch.Ref(w.blob.Digest))
	if err != nil {
		w.Fatal(err)
	}
	return status.Offset
}

func TestBrokenConnectionsGoOn(t *testing.T) {
	for cuts, fault := range map[string][]faultproxy.Fault{
		"once":                        {{Path: "/blobs/", Cut: 300_000, Times: 1}},
		"oftener than attempts":       {{Path: "/blobs/", Cut: 100_000, Times: 8}},
		"before the answer":           {{Path: "/blobs/", Close: true, Times: 2}},
		"and servers that are busy":   {{Path: "/blobs/", Cut: 300_000, Times: 1}, {Path: "/blobs/", Status: 503, Times: 1}},
		"and a registry full of work": {{Path: "/blobs/", Status: 429, Header: http.Header{"Retry-After": {"0"}}, Times: 1}, {Path: "/blobs/", Status: 500, Times: 1}},
	} {
		t.Run(cuts, func(t *testing.T) {
			w := newWorld(t)
			w.proxy.Set(fault...)
			if err := w.fetch(w.ctx, nil); err != nil {
				t.Fatal(err)
			}
			w.whole()
			if sent := w.proxy.Sent("GET", "/blobs/"); sent > size+1000 {
				t.Errorf("%d bytes were sent for a blob of %d", sent, size)
			}
		})
	}
}

func TestEachPieceIsAskedForByRange(t *testing.T) {
	w := newWorld(t)
	w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Cut: 300_000, Times: 2})
	var statuses []fetch.Status
	if err := w.fetch(w.ctx, func(s fetch.Status) { statuses = append(statuses, s) }); err != nil {
		t.Fatal(err)
	}
	w.whole()
	var ranges []string
	for _, r := range w.proxy.Asked("GET", "/blobs/") {
		ranges = append(ranges, r.Range)
	}
	if got, want := strings.Join(ranges, " "), " bytes=300000-1048592 bytes=600000-1048592"; got != want {
		t.Errorf("ranges %q, want %q", got, want)
	}
	last := statuses[len(statuses)-1]
	if last.Phase != fetch.Verifying || last.Offset != size {
		t.Errorf("the last that was told is %+v", last)
	}
}

func TestRegistriesWithoutRanges(t *testing.T) {
	for name, second := range map[string]faultproxy.Fault{
		"all of it again": {Path: "/blobs/", NoRange: true, Times: 1},
		"another range":   {Path: "/blobs/", Header: http.Header{"Content-Range": {"bytes 5-1048592/1048593"}}, Times: 1},
		"not satisfiable": {Path: "/blobs/", Status: http.StatusRequestedRangeNotSatisfiable, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Cut: 300_000, Times: 1}, second)
			if err := w.fetch(w.ctx, nil); err != nil {
				t.Fatal(err)
			}
			w.whole()
		})
	}
}

func TestWrongBytesLeaveNothing(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for name, fault := range map[string]faultproxy.Fault{
		"another byte": {Path: "/blobs/", Rewrite: flip},
		"too few":      {Path: "/blobs/", Rewrite: func(b []byte) []byte { return b[:len(b)-1] }},
		"too many":     {Path: "/blobs/", Rewrite: func(b []byte) []byte { return append(b, 0) }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.proxy.Set(fault)
			if err := w.fetch(w.ctx, nil); !errors.Is(err, registry.ErrVerification) {
				t.Fatalf("got %v", err)
			}
			w.absent()
			w.noIngest()
			if n := len(w.proxy.Asked("GET", "/blobs/")); n != 1 {
				t.Errorf("asked %d times for a blob that is wrong", n)
			}
		})
	}
	t.Run("only in a piece of before", func(t *testing.T) {
		w := newWorld(t)
		w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Cut: 300_000, Times: 1, Header: http.Header{"Content-Length": {"1048593"}}, Rewrite: func(b []byte) []byte { b[7] ^= 1; return b }})
		if err := w.fetch(w.ctx, nil); err != nil {
			t.Fatal(err)
		}
		w.whole()
	})
}

func TestRefusalsAreNotRepeated(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 410, 501} {
		w := newWorld(t)
		w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Status: status, Body: `{"errors":[{"code":"DENIED","message":"no"}]}`})
		err := w.fetch(w.ctx, nil)
		if refused := registry.Refusal(err); refused == nil || refused.StatusCode != status {
			t.Errorf("%d: got %v", status, err)
		}
		if n := len(w.proxy.Asked("GET", "/blobs/")); n != 1 {
			t.Errorf("%d: asked %d times", status, n)
		}
		w.absent()
	}
}

func TestFaultsThatMayPassAreRepeatedAFewTimes(t *testing.T) {
	for _, fault := range []faultproxy.Fault{{Status: 429}, {Status: 500}, {Status: 502}, {Status: 503}, {Close: true}, {Cut: 1000}} {
		w := newWorld(t)
		fault.Path = "/blobs/"
		w.proxy.Set(fault)
		retries := 0
		if err := w.fetch(w.ctx, func(s fetch.Status) {
			if s.Phase == fetch.Retrying {
				retries++
			}
		}); err == nil {
			t.Errorf("%+v: no error", fault)
		}
		// The HTTP client repeats by itself what a connection did not answer that had been of use before.
		if n := len(w.proxy.Asked("GET", "/blobs/")); n != 3 && (!fault.Close || n != 4) {
			t.Errorf("%+v: asked %d times", fault, n)
		}
		if retries == 0 {
			t.Errorf("%+v: no retry was told", fault)
		}
	}
}

func TestARegistryThatWantsALongTimeIsGivenUp(t *testing.T) {
	w := newWorld(t)
	w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Status: 429, Header: http.Header{"Retry-After": {"3600"}}})
	err := w.fetch(w.ctx, nil)
	if registry.RetryAfter(err) != time.Hour || len(w.proxy.Asked("GET", "/blobs/")) != 1 {
		t.Errorf("%v after %d requests", err, len(w.proxy.Asked("GET", "/blobs/")))
	}
}

func TestASilentRegistryIsGivenUp(t *testing.T) {
	for name, fault := range map[string]faultproxy.Fault{
		"before its answer": {Path: "/blobs/", Hang: true},
		"in the middle":     {Path: "/blobs/", Cut: 10, Stall: true},
		"at the beginning":  {Path: "/v2/", Hang: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.silence = 100 * time.Millisecond
			w.proxy.Set(fault)
			err := w.fetch(w.ctx, nil)
			if err == nil || !strings.Contains(err.Error(), "no answer within 100ms") {
				t.Errorf("got %v", err)
			}
			// Being slow is not being silent.
			w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Rate: 2 << 20})
			if err := w.fetch(w.ctx, nil); err != nil {
				t.Error(err)
			}
			w.whole()
		})
	}
}

// TestOneDownloadServesAll: ten want the blob, it is sent once, and each is told how
// far it is.
func TestOneDownloadServesAll(t *testing.T) {
	w := newWorld(t)
	w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Rate: 4 << 20})
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			told := 0
			if err := w.fetch(w.ctx, func(fetch.Status) { told++ }); err != nil {
				t.Error(err)
			}
			if told < 2 {
				t.Errorf("was told %d times", told)
			}
		})
	}
	group.Wait()
	w.whole()
	if n := len(w.proxy.Asked("GET", "/blobs/")); n != 1 {
		t.Errorf("the blob was asked for %d times", n)
	}
}

// TestWhoBeganMayLeave: the others go on; when the last leaves the download ends at
// once, and what is here serves the next.
func TestWhoBeganMayLeave(t *testing.T) {
	w := newWorld(t)
	w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Cut: 600_000, Stall: true, Times: 1})
	first, leaveFirst := context.WithCancel(w.ctx)
	second, leaveSecond := context.WithCancel(w.ctx)
	defer leaveSecond()
	far := make(chan struct{})
	ends := make(chan error, 2)
	go func() {
		once := sync.OnceFunc(func() { close(far) })
		ends <- w.fetch(first, func(s fetch.Status) {
			if s.Offset > 500_000 {
				once()
			}
		})
	}()
	<-far
	joined := make(chan struct{})
	go func() {
		once := sync.OnceFunc(func() { close(joined) })
		ends <- w.fetch(second, func(fetch.Status) { once() })
	}()
	<-joined
	leaveFirst()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Errorf("who left has %v", err)
	}
	if n, err := w.fetcher.DropUnfinished(w.ctx); n != 0 || err != nil {
		t.Errorf("a download under way was dropped: %d, %v", n, err)
	}
	leaveSecond()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Errorf("who left has %v", err)
	}
	if w.here() != 600_000 {
		t.Errorf("%d bytes are here", w.here())
	}
	w.proxy.Forget()
	if err := w.fetch(w.ctx, nil); err != nil {
		t.Fatal(err)
	}
	w.whole()
	if sent := w.proxy.Sent("GET", "/blobs/"); sent != size-600_000 {
		t.Errorf("%d bytes were sent again", sent)
	}
}

func TestUnfinishedDownloadsAreDropped(t *testing.T) {
	w := newWorld(t)
	w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Cut: 60_000})
	if err := w.fetch(w.ctx, nil); err == nil {
		t.Fatal("no error")
	}
	if n, err := w.fetcher.DropUnfinished(w.ctx); n != 180_000 || err != nil {
		t.Errorf("dropped %d bytes, %v", n, err)
	}
	w.noIngest()
	w.proxy.Set()
	if err := w.fetch(w.ctx, nil); err != nil {
		t.Fatal(err)
	}
	w.whole()
}

// TestMirrorsInTurn: what one mirror began the next finishes.
func TestMirrorsInTurn(t *testing.T) {
	w := newWorld(t)
	mirror := faultproxy.New(w.proxy.Server().Config.Handler)
	defer mirror.Close()
	mirror.Set(faultproxy.Fault{Path: "/blobs/", Cut: 400_000, Times: 1}, faultproxy.Fault{Path: "/blobs/", Status: 404})
	if err := w.fetcher.Fetch(w.ctx, w.blob, w.sources("127.0.0.1:1", mirror.Address), func(fetch.Status) {}); err != nil {
		t.Fatal(err)
	}
	w.whole()
	asked := w.proxy.Asked("GET", "/blobs/")
	if last := asked[len(asked)-1]; last.Sent != size-400_000 {
		t.Errorf("the registry sent %d bytes for %q", last.Sent, last.Range)
	}
}

// TestWithOtherSources: who joined a download that fails tries by itself.
func TestWithOtherSources(t *testing.T) {
	w := newWorld(t)
	w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Delay: 200 * time.Millisecond, Times: 1})
	dead := w.sources("127.0.0.1:1")[:1]
	w.fetcher = fetch.New(fetch.Options{Store: w.store, Attempts: 3, Backoff: 50 * time.Millisecond})
	begun := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		once := sync.OnceFunc(func() { close(begun) })
		if err := w.fetcher.Fetch(w.ctx, w.blob, dead, func(fetch.Status) { once() }); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v", err)
		}
	})
	<-begun
	if err := w.fetch(w.ctx, nil); err != nil {
		t.Error(err)
	}
	group.Wait()
	w.whole()
}

// TestAFullDisk keeps no part of a blob for which there is no room, and says so.
func TestAFullDisk(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=700k"); err != nil {
		t.Skip("mounting needs root:", err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	w.open(dir)
	err := w.fetch(w.ctx, nil)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	w.absent()
	w.noIngest()
}

// TestKilled: a process that is killed with a part of a blob leaves it to the next.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("FETCH_DIR"); dir != "" {
		fetchForever(t, dir)
		return
	}
	w := newWorld(t)
	w.proxy.Set(faultproxy.Fault{Path: "/blobs/", Cut: 700_000, Stall: true, Times: 1})
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), "FETCH_DIR="+dir, "FETCH_FROM="+w.proxy.Address, "FETCH_DIGEST="+w.blob.Digest.String())
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Errorf("the child did not come far: %v", err)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	w.open(dir)
	w.proxy.Forget()
	if err := w.fetch(w.ctx, nil); err != nil {
		t.Fatal(err)
	}
	w.whole()
	asked := w.proxy.Asked("GET", "/blobs/")
	if len(asked) != 1 || asked[0].Sent > size-512<<10 || asked[0].Range == "" {
		t.Errorf("after the kill: %+v", asked)
	}
}

// fetchForever is the process that is killed.
func fetchForever(t *testing.T, dir string) {
	w := &world{T: t, ctx: namespaces.WithNamespace(context.Background(), "test"), silence: time.Minute}
	w.open(dir)
	w.proxy = &faultproxy.Proxy{Address: os.Getenv("FETCH_FROM")}
	w.blob = ocispec.Descriptor{Digest: digest.Digest(os.Getenv("FETCH_DIGEST")), Size: size}
	_ = w.fetch(w.ctx, func(s fetch.Status) {
		if s.Offset >= 512<<10 {
			_, _ = os.Stdout.WriteString("far")
		}
	})
}

// TestSomeAtATime: no more are on their way than are allowed, of all callers together.
func TestSomeAtATime(t *testing.T) {
	var now, most atomic.Int32
	blobs := memory.New(memory.Logger(log.New(io.Discard, "", 0)))
	w := newWorldOf(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			n := now.Add(1)
			defer now.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			time.Sleep(20 * time.Millisecond)
		}
		blobs.ServeHTTP(rw, r)
	}))
	w.fetcher = fetch.New(fetch.Options{Store: w.store, Parallel: 2})
	repository, err := name.NewRepository(w.proxy.Address + "/team/app")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 8 {
		body := []byte{byte(i), 1, 2, 3}
		if err := remote.WriteLayer(repository, static.NewLayer(body, types.DockerLayer)); err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			d := ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(len(body))}
			if err := w.fetcher.Fetch(w.ctx, d, w.sources(), func(fetch.Status) {}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := most.Load(); n != 2 {
		t.Errorf("%d were on their way at once", n)
	}
}

// TestBlobsAreNotHeldInMemory brings one that is much larger than what is allocated
// for it.
func TestBlobsAreNotHeldInMemory(t *testing.T) {
	const large = 64 << 20
	chunk := make([]byte, 1<<16)
	digester := digest.Canonical.Digester()
	for range large / len(chunk) {
		_, _ = digester.Hash().Write(chunk)
	}
	w := newWorldOf(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		for range large / len(chunk) {
			if _, err := rw.Write(chunk); err != nil {
				return
			}
		}
	}))
	w.blob = ocispec.Descriptor{Digest: digester.Digest(), Size: large}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := w.fetch(w.ctx, nil); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > large/8 {
		t.Errorf("%d bytes were allocated for a blob of %d", got, large)
	}
}

func TestDescriptorsThatCannotBe(t *testing.T) {
	w := newWorld(t)
	for _, d := range []ocispec.Descriptor{{Digest: "sha256:abc", Size: 1}, {Digest: "md5:00", Size: 1}, {Digest: w.blob.Digest, Size: -1}} {
		if err := w.fetcher.Fetch(w.ctx, d, w.sources(), nil); err == nil {
			t.Errorf("%+v was fetched", d)
		}
	}
}
