// Package faultproxy stands between a client and a registry and does what networks and
// registries do on bad days: cuts connections, is slow or silent, refuses, or answers
// with something else than what was asked for.
package faultproxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Fault is one thing that goes wrong. What it does not name goes on as it would.
type Fault struct {
	Method string // of the requests it is for; empty: GET
	Path   string // that their paths contain
	Times  int    // how often; zero: always

	Status int         // answer this, with Body, instead of asking the registry
	Header http.Header // added to the answer, replacing what is there
	Body   string

	Cut      int64         // close the connection after so many bytes of the body (Cut > 0)
	Close    bool          // close the connection before the answer
	Truncate bool          // end the answer properly in the middle of its body
	Rate     int           // bytes per second; zero: as fast as it goes
	Hang     bool          // never answer
	Stall    bool          // stop in the middle of the body, after Cut bytes, without closing
	Delay    time.Duration // before the answer
	Until    chan struct{} // wait until it is closed before the answer
	CutSent  int64         // close the connection after so many bytes of the request's body (CutSent > 0)

	NoRange bool                // forget that only a part was asked for
	Rewrite func([]byte) []byte // change the body
}

// Proxy is a faulty registry. It is safe for concurrent use.
type Proxy struct {
	// Address is host:port, as in the names of images.
	Address string

	server  *httptest.Server
	behind  http.Handler
	stopped chan struct{}

	mu     sync.Mutex
	faults []*Fault
	asked  []Request
}

// Request is what was asked for.
type Request struct {
	Method, Path, Range string
	Header              http.Header
	Sent                int64 // bytes of the answer's body
	Received            int64 // bytes of the request's body
}

// New starts a proxy before a registry in this process.
func New(registry http.Handler) *Proxy {
	p := &Proxy{behind: registry, stopped: make(chan struct{})}
	p.server = httptest.NewServer(p)
	p.Address = strings.TrimPrefix(p.server.URL, "http://")
	return p
}

// NewTLS is New with TLS and a certificate that nobody vouches for.
func NewTLS(registry http.Handler, configure func(*httptest.Server)) *Proxy {
	p := &Proxy{behind: registry, stopped: make(chan struct{})}
	p.server = httptest.NewUnstartedServer(p)
	configure(p.server)
	p.server.StartTLS()
	p.Address = strings.TrimPrefix(p.server.URL, "https://")
	return p
}

// Before starts a proxy before the registry at an address.
func Before(address string) *Proxy {
	return New(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address}))
}

// Server is the HTTP server itself.
func (p *Proxy) Server() *httptest.Server { return p.server }

// Close ends the proxy and what it does.
func (p *Proxy) Close() {
	close(p.stopped)
	p.server.CloseClientConnections()
	p.server.Close()
}

// Set replaces all faults.
func (p *Proxy) Set(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
	for _, f := range faults {
		p.faults = append(p.faults, &f)
	}
}

// Asked answers the requests so far whose path contains a text.
func (p *Proxy) Asked(method, path string) []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []Request
	for _, r := range p.asked {
		if r.Method == method && strings.Contains(r.Path, path) {
			list = append(list, r)
		}
	}
	return list
}

// Sent is how many bytes the bodies of these requests' answers had together.
func (p *Proxy) Sent(method, path string) int64 {
	var sum int64
	for _, r := range p.Asked(method, path) {
		sum += r.Sent
	}
	return sum
}

// Forget empties the list of requests.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = nil
}

// next notes a request and answers the fault that it meets.
func (p *Proxy) next(r *http.Request) (fault Fault, number int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, Request{Method: r.Method, Path: r.URL.String(), Range: r.Header.Get("Range"), Header: r.Header.Clone()})
	for i, f := range p.faults {
		method := f.Method
		if method == "" {
			method = http.MethodGet
		}
		if method != r.Method || !strings.Contains(r.URL.Path, f.Path) {
			continue
		}
		fault = *f
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				p.faults = append(p.faults[:i:i], p.faults[i+1:]...)
			}
		}
		break
	}
	return fault, len(p.asked) - 1
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, number := p.next(r)
	if f.Delay > 0 {
		p.wait(r.Context(), f.Delay)
	}
	if f.Until != nil {
		select {
		case <-f.Until:
		case <-r.Context().Done():
		case <-p.stopped:
		}
	}
	switch {
	case f.Hang:
		p.wait(r.Context(), time.Hour)
		panic(http.ErrAbortHandler)
	case f.Close:
		panic(http.ErrAbortHandler)
	}
	out := &writer{ResponseWriter: w, proxy: p, request: r, fault: f, number: number}
	defer out.end()
	if f.Status != 0 {
		for key, values := range f.Header {
			w.Header()[key] = values
		}
		out.WriteHeader(f.Status)
		_, _ = io.WriteString(out, f.Body)
		return
	}
	if f.NoRange {
		r.Header.Del("Range")
	}
	body := &received{ReadCloser: r.Body, proxy: p, number: number, cut: f.CutSent}
	r.Body = body
	if f.CutSent > 0 {
		defer func() { panic(http.ErrAbortHandler) }() // whatever the registry answers
	}
	p.behind.ServeHTTP(out, r)
}

// received is a request's body, which may break off.
type received struct {
	io.ReadCloser
	proxy     *Proxy
	number    int
	cut, read int64
}

func (b *received) Read(p []byte) (int, error) {
	if b.cut > 0 {
		if b.read == b.cut {
			return 0, io.ErrUnexpectedEOF
		}
		p = p[:min(int64(len(p)), b.cut-b.read)]
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	b.proxy.mu.Lock()
	defer b.proxy.mu.Unlock()
	if b.number < len(b.proxy.asked) {
		b.proxy.asked[b.number].Received += int64(n)
	}
	return n, err
}

// wait sleeps until the client or the proxy goes away.
func (p *Proxy) wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	case <-p.stopped:
	}
}

// writer spoils an answer.
type writer struct {
	http.ResponseWriter
	proxy   *Proxy
	request *http.Request
	fault   Fault
	number  int
	begun   bool
	status  int
	sent    int64
	held    bytes.Buffer // what is rewritten or truncated at the end
}

func (w *writer) holds() bool { return w.fault.Rewrite != nil || w.fault.Truncate }

// WriteHeader implements http.ResponseWriter, as do the following.
func (w *writer) WriteHeader(status int) {
	if w.begun {
		return
	}
	w.begun, w.status = true, status
	if w.fault.Status == 0 {
		for key, values := range w.fault.Header {
			w.Header()[key] = values
		}
	}
	if !w.holds() {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *writer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.holds() {
		return w.held.Write(b)
	}
	return w.pass(b)
}

// pass sends with what the fault allows.
func (w *writer) pass(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		part := b
		if rate := w.fault.Rate; rate > 0 {
			part = b[:min(len(b), max(1, rate/20))]
		}
		if cut := w.fault.Cut; cut > 0 {
			part = part[:min(int64(len(part)), cut-w.sent)]
			if len(part) == 0 {
				w.flush()
				if w.fault.Stall {
					w.proxy.wait(w.request.Context(), time.Hour)
				}
				panic(http.ErrAbortHandler)
			}
		}
		n, err := w.ResponseWriter.Write(part)
		w.count(int64(n))
		written += n
		if err != nil {
			return written, err
		}
		b = b[n:]
		if w.fault.Rate > 0 {
			w.flush()
			w.proxy.wait(w.request.Context(), time.Second/20)
			if w.request.Context().Err() != nil {
				return written, w.request.Context().Err()
			}
		}
	}
	return written, nil
}

func (w *writer) count(n int64) {
	w.sent += n
	w.proxy.mu.Lock()
	defer w.proxy.mu.Unlock()
	if w.number < len(w.proxy.asked) {
		w.proxy.asked[w.number].Sent += n
	}
}

func (w *writer) flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// end sends what was held back.
func (w *writer) end() {
	if !w.holds() || !w.begun {
		return
	}
	body := w.held.Bytes()
	if w.fault.Rewrite != nil {
		body = w.fault.Rewrite(body)
	}
	if w.fault.Truncate {
		body = body[:len(body)/2]
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.ResponseWriter.WriteHeader(w.status)
	_, _ = w.pass(body)
}
