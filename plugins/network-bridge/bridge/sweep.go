package bridge

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkSweeper deletes links in the background: the kernel takes up to 30 ms for
// each, and most are gone with their namespace before their turn.
type linkSweeper struct {
	log hclog.Logger
	mu  sync.Mutex
	due []dueLink
	// removing is what the loop is just about; removed tells when it has.
	removing dueLink
	removed  *sync.Cond
	wake     chan struct{}
	stop     chan struct{}
	done     chan struct{}
}

type dueLink struct {
	name  string
	netns string // path of the namespace of its far end, if there was one
	at    time.Time
}

func newLinkSweeper(log hclog.Logger) *linkSweeper {
	s := &linkSweeper{log: log, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	s.removed = sync.NewCond(&s.mu)
	go s.loop()
	return s
}

func (s *linkSweeper) add(name, netns string, after time.Duration) {
	s.mu.Lock()
	s.due = append(s.due, dueLink{name, netns, time.Now().Add(after)})
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *linkSweeper) loop() {
	defer close(s.done)
	for {
		name, wait := s.next()
		if name != "" {
			s.remove(name)
			s.mu.Lock()
			s.removing = dueLink{}
			s.removed.Broadcast()
			s.mu.Unlock()
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-s.stop:
			timer.Stop()
			return
		case <-s.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// next answers a link that is due, or how long to wait for one.
func (s *linkSweeper) next() (string, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := time.Hour
	for i, link := range s.due {
		left := time.Until(link.at)
		if left <= 0 {
			s.due = append(s.due[:i:i], s.due[i+1:]...)
			s.removing = link
			return link.name, 0
		}
		wait = min(wait, left)
	}
	return "", wait
}

// hurry removes the links with an end in a namespace now, or waits for the loop that
// just does so.
func (s *linkSweeper) hurry(netns string) {
	s.mu.Lock()
	var now []dueLink
	for s.removing.name != "" && s.removing.netns == netns {
		s.removed.Wait()
	}
	s.due = slices.DeleteFunc(s.due, func(link dueLink) bool {
		if link.netns != netns {
			return false
		}
		now = append(now, link)
		return true
	})
	s.mu.Unlock()
	for _, link := range now {
		s.remove(link.name)
	}
}

func (s *linkSweeper) remove(name string) {
	if err := removeLink(name); err != nil {
		s.log.Warn("removing a link", "link", name, "error", err)
	}
}

// removeLink removes a link that may not be there.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// close ends the sweeper; what is not due yet goes at once.
func (s *linkSweeper) close() {
	close(s.stop)
	<-s.done
	for _, link := range s.due {
		s.remove(link.name)
	}
}
