package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/davit-engine/davit/sdk/network"
)

// path is one way between two namespaces; "" is the host.
type path struct {
	name             string
	client, server   string
	address          string
	port, serverPort int
	bare             int // the path of the same kind that nothing but the kernel is in
}

// paths makes bare veth pairs between namespaces, one direct and two with a router
// in between, to compare with, and containers that are reached in every way.
func (l *lab) paths() []path {
	l.Helper()
	one, two := l.namespace(), l.namespace()
	l.sh("ip link add pair0 type veth peer name pair1", "ip link set pair0 netns "+one, "ip link set pair1 netns "+two)
	l.shIn(one, "ip addr add 10.66.0.1/24 dev pair0", "ip link set pair0 up")
	l.shIn(two, "ip addr add 10.66.0.2/24 dev pair1", "ip link set pair1 up")
	router, three, four := l.namespace(), l.namespace(), l.namespace()
	for i, end := range []string{three, four} {
		subnet, inside, outside := fmt.Sprintf("10.66.%d.", i+1), fmt.Sprintf("near%d", i), fmt.Sprintf("far%d", i)
		l.sh("ip link add "+inside+" type veth peer name "+outside, "ip link set "+inside+" netns "+router, "ip link set "+outside+" netns "+end)
		l.shIn(router, "ip addr add "+subnet+"1/24 dev "+inside, "ip link set "+inside+" up")
		l.shIn(end, "ip addr add "+subnet+"2/24 dev "+outside, "ip link set "+outside+" up", "ip route add default via "+subnet+"1")
	}
	l.shIn(router, "sysctl -qw net.ipv4.ip_forward=1")
	l.network("n", nil)
	server := l.container("n", "server", func(a *network.Attachment) { a.Ports = []network.Port{tcp(5201, 5202), tcp(80, 8080)} })
	client := l.container("n", "client", nil)
	ip4 := server.IPv4.Addr().String()
	return []path{
		{"bare veth pair", one, two, "10.66.0.2", 5201, 80, 0},
		{"two bare veth pairs, routed", three, four, "10.66.2.2", 5201, 80, 1},
		{"container to container", client.Netns, server.Netns, ip4, 5201, 80, 0},
		{"container to container, IPv6", client.Netns, server.Netns, server.IPv6.Addr().String(), 5201, 80, 0},
		{"host to container", "", server.Netns, ip4, 5201, 80, 0},
		{"other host to published port", l.lan, server.Netns, host4, 5202, 8080, 1},
		{"other host to published port, IPv6", l.lan, server.Netns, host6, 5202, 8080, 1},
	}
}

// BenchmarkThroughput reports, for each path, how much of the throughput of the
// bare path of its kind it has: the median of rounds that go through all paths in turn, so
// that whatever else the machine does hits all of them. `make bench` runs it.
func BenchmarkThroughput(b *testing.B) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		b.Skip("no iperf3: install it to measure throughput")
	}
	l := newLab(b)
	paths := l.paths()
	const rounds = 7
	bits, requests := make([][]float64, len(paths)), make([][]float64, len(paths))
	for i, p := range paths {
		if i < 3 { // all others have the third's server
			l.serveHTTP(p.server, 80)
		}
	}
	for range rounds {
		for i, p := range paths {
			bits[i] = append(bits[i], l.iperf(p))
			requests[i] = append(requests[i], l.load(p))
		}
	}
	// Each round is compared with the bare path of the same round.
	for i, p := range paths {
		b.Run(p.name, func(b *testing.B) {
			for b.Loop() { //nolint:revive // measured above, in turns
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(bits[i])/1e9, "Gbit/s")
			b.ReportMetric(100*median(ratios(bits[i], bits[p.bare])), "%bits")
			b.ReportMetric(median(requests[i]), "requests/s")
			b.ReportMetric(100*median(ratios(requests[i], requests[p.bare])), "%requests")
		})
	}
}

func ratios(of, base []float64) []float64 {
	var list []float64
	for i := range of {
		list = append(list, of[i]/base[i])
	}
	return list
}

func median(samples []float64) float64 { return slices.Sorted(slices.Values(samples))[len(samples)/2] }

// iperf measures one stream of TCP, in bits per second.
func (l *lab) iperf(p path) float64 {
	l.Helper()
	server := exec.CommandContext(l.Context(), "nsenter", "--net="+p.server, "iperf3", "-s", "-1", "-p", "5201")
	if err := server.Start(); err != nil {
		l.Fatal(err)
	}
	defer func() { _ = server.Wait() }()
	listening := "until ss -tlnH 'sport = 5201' | grep -q .; do :; done"
	l.shIn(p.server, listening)
	out := l.shIn(p.client, "iperf3 -J -t 1 -c "+p.address+" -p "+strconv.Itoa(p.port))
	var result struct {
		End struct {
			Sum struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil || result.End.Sum.Bits == 0 {
		l.Fatalf("iperf3 from %s: %v\n%s", p.name, err, out)
	}
	return result.End.Sum.Bits
}

// load measures requests over kept connections, four at a time, per second.
func (l *lab) load(p path) float64 {
	l.Helper()
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = l.in(p.client, func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return c, err
	}}}
	defer web.CloseIdleConnections()
	const workers, duration = 4, 500 * time.Millisecond
	counts := make(chan int, workers)
	begin := time.Now()
	for range workers {
		go func() {
			done := 0
			for time.Since(begin) < duration {
				response, err := web.Get("http://" + net.JoinHostPort(p.address, strconv.Itoa(p.serverPort)) + "/")
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				done++
			}
			counts <- done
		}()
	}
	total := 0
	for range workers {
		total += <-counts
	}
	if total == 0 {
		l.Fatalf("no request from %s was answered", p.name)
	}
	return float64(total) / time.Since(begin).Seconds()
}
