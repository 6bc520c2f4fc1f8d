package image

import (
	"fmt"
	"io"
	"time"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/davit-engine/davit/core/image/fetch"
)

// progress sends messages in order; the first failure is kept for the end, since
// a client that went away does not stop a pull others may wait for.
type progress struct {
	lock   chan struct{}
	out    func(jsonstream.Message) error
	failed error
}

func newProgress(out func(jsonstream.Message) error) *progress {
	return &progress{lock: make(chan struct{}, 1), out: out}
}

func (p *progress) send(m jsonstream.Message) {
	p.lock <- struct{}{}
	defer func() { <-p.lock }()
	if p.failed == nil {
		p.failed = p.out(m)
	}
}

func (p *progress) say(id, status string) { p.send(jsonstream.Message{ID: id, Status: status}) }

func (p *progress) err() error { return p.failed }

// download tells how far a download is, in Docker's words.
func (p *progress) download(id string, total int64) func(fetch.Status) {
	last := fetch.Status{Phase: -1}
	return func(s fetch.Status) {
		begins := s.Phase != last.Phase
		last = s
		switch s.Phase {
		case fetch.Waiting:
			if begins {
				p.say(id, "Waiting")
			}
		case fetch.Downloading:
			p.send(jsonstream.Message{ID: id, Status: "Downloading", Progress: &jsonstream.Progress{Current: s.Offset, Total: total}})
		case fetch.Retrying:
			p.say(id, "Retrying in "+seconds(s.Wait))
		case fetch.Verifying:
			if begins {
				p.send(jsonstream.Message{ID: id, Status: "Downloading", Progress: &jsonstream.Progress{Current: total, Total: total}})
				p.say(id, "Verifying Checksum")
			}
		}
	}
}

func seconds(d time.Duration) string {
	n := int64((d + time.Second - 1) / time.Second)
	if n == 1 {
		return "1 second"
	}
	return fmt.Sprintf("%d seconds", n)
}

// meter reports each half mebibyte that passes.
func (p *progress) meter(id, status string, total int64, body io.Reader) io.Reader {
	return &meter{Reader: body, progress: p, id: id, status: status, total: total}
}

type meter struct {
	io.Reader
	*progress
	id, status           string
	total, current, last int64
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	m.current += int64(n)
	if m.current-m.last >= 1<<19 {
		m.last = m.current
		m.send(jsonstream.Message{ID: m.id, Status: m.status, Progress: &jsonstream.Progress{Current: m.current, Total: m.total}})
	}
	return n, err
}
