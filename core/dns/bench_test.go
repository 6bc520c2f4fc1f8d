package dns

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// load asks about a name over sockets of the container until n questions are
// answered.
func load(b *testing.B, c *container, name string, sockets int) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range sockets {
		conn, err := c.dial("udp")
		if err != nil {
			b.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			b.Fatal(err)
		}
		all.Go(func() {
			defer func() { _ = conn.Close() }()
			for next.Add(1) <= int64(b.N) {
				m := new(dns.Msg).SetQuestion(name, dns.TypeA)
				if err := conn.WriteMsg(m); err != nil {
					b.Error(err)
					return
				}
				if answer, err := conn.ReadMsg(); err != nil || len(answer.Answer) != 1 {
					b.Errorf("answer %v, %v", answer, err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "questions/s")
}

// BenchmarkPackets is the floor: packets of the same size go to and fro within the
// namespace, and nobody reads them.
func BenchmarkPackets(b *testing.B) {
	c := newContainer(b)
	var packets net.PacketConn
	var err error
	done := make(chan struct{})
	c.work <- func() {
		defer close(done)
		packets, err = net.ListenPacket("udp4", "127.0.0.11:53")
	}
	<-done
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = packets.Close() }()
	answer, err := says("172.20.0.2", dns.RcodeSuccess)(new(dns.Msg).SetQuestion("web.", dns.TypeA)).Pack()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		buffer := make([]byte, 512)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			if n >= 2 {
				copy(answer, buffer[:2])
				_, _ = packets.WriteTo(answer, from)
			}
		}
	}()
	load(b, c, "web.", 16)
}

// The whole way of a question, the asking program's part included: sockets in a
// container's namespace, redirection, answer.
func BenchmarkNamesOfContainers(b *testing.B) {
	c := serve(b, newServer(b, names{"abc": {"web": addrs("172.20.0.2")}}), Client{ID: "abc"})
	load(b, c, "web.", 16)
}

func BenchmarkForwardedNames(b *testing.B) {
	u := newUpstream(b, host(1), says("192.0.2.1", dns.RcodeSuccess))
	c := serve(b, newServer(b, nil, u.address), Client{ID: "abc"})
	load(b, c, "example.org.", 128)
}

// What a hanging name server has to wait for does not slow names of containers.
func BenchmarkNamesBesideAHangingServer(b *testing.B) {
	u := newUpstream(b, host(1), silent)
	s := newServer(b, names{"abc": {"web": addrs("172.20.0.2")}}, u.address)
	c := serve(b, s, Client{ID: "abc"})
	stop := make(chan struct{})
	var floods sync.WaitGroup
	conn, err := c.dial("udp")
	if err != nil {
		b.Fatal(err)
	}
	floods.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_ = conn.WriteMsg(new(dns.Msg).SetQuestion("example.org.", dns.TypeA))
			}
		}
	})
	for s.limits.now.Load() < forwardMost/2 {
		time.Sleep(time.Millisecond)
	}
	b.ResetTimer()
	load(b, c, "web.", 16)
	close(stop)
	floods.Wait()
	_ = conn.Close()
}
