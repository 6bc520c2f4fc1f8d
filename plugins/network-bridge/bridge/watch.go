package bridge

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watcher puts the firewall back when somebody else removes parts of it: a
// firewall that is reloaded flushes the ruleset as a whole.
type watcher struct {
	socket *nl.NetlinkSocket
	closed atomic.Bool
	done   chan struct{}
}

// settle is how long the watcher waits after a removal: the ruleset is flushed
// and loaded in several steps.
const (
	settle   = 50 * time.Millisecond
	patience = time.Second // at most, while somebody changes the ruleset all the time
)

func newWatcher(d *Driver) (*watcher, error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, err
	}
	w := &watcher{socket: socket, done: make(chan struct{})}
	go w.loop(d)
	return w, nil
}

func (w *watcher) loop(d *Driver) {
	defer close(w.done)
	for {
		messages, _, err := w.socket.Receive()
		if w.closed.Load() {
			return
		}
		lost := err != nil // ENOBUFS: anything may have happened
		d.mu.Lock()
		touched := lost
		for _, m := range messages {
			touched = touched || m.Header.Pid != d.firewall.port && removes(m) && tableOf(m) == d.firewall.table.Name
		}
		d.mu.Unlock()
		if touched && !w.restore(d) {
			return
		}
	}
}

// restore waits until whoever is at work is done, and rebuilds the table. It
// answers false if the watcher was closed meanwhile.
func (w *watcher) restore(d *Driver) bool {
	for begin := time.Now(); time.Since(begin) < patience; {
		if err := w.socket.SetReceiveTimeout(&unix.Timeval{Usec: settle.Microseconds()}); err != nil {
			return false
		}
		_, _, err := w.socket.Receive()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if w.closed.Load() {
			return false
		}
	}
	if err := w.socket.SetReceiveTimeout(&unix.Timeval{}); err != nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.networks) == 0 {
		return true
	}
	if err := d.firewall.rebuild(d.networks); err != nil {
		d.log.Error("putting the firewall's rules back", "error", err)
	} else {
		d.log.Warn("somebody removed rules of networks and published ports; they were put back", "table", d.firewall.table.Name)
	}
	return true
}

// removes says whether a message announces that something is gone (nf_tables.h).
func removes(m syscall.NetlinkMessage) bool {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return false
	}
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM:
		return true
	}
	return false
}

// tableOf is the table that a message is about: attribute 1 of each of them,
// after the four bytes of struct nfgenmsg.
func tableOf(m syscall.NetlinkMessage) string {
	const nameAttribute = 1
	for data := m.Data[min(4, len(m.Data)):]; len(data) >= 4; {
		size := int(binary.NativeEndian.Uint16(data))
		if size < 4 || size > len(data) {
			return ""
		}
		if binary.NativeEndian.Uint16(data[2:])&0x3fff == nameAttribute {
			return string(data[4:max(4, size-1)]) // without its final zero
		}
		data = data[min((size+3)&^3, len(data)):]
	}
	return ""
}

// close ends the watcher and waits for it.
func (w *watcher) close() {
	w.closed.Store(true)
	w.socket.Close()
	<-w.done
}
