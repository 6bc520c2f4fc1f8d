package resolvconf

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const full = `# a comment
; another
nameserver 192.0.2.1
  nameserver	fe80::1%eth0
nameserver 127.0.0.1
nameserver ::1
nameserver 2001:db8::53 trailing
nameserver not-an-address
nameserver
domain old.example
search a.example b.example
search
options ndots:2 edns0
options trust-ad
sortlist 192.0.2.0/24
`

func TestParse(t *testing.T) {
	want := Config{
		Servers: addresses("192.0.2.1", "fe80::1%eth0", "127.0.0.1", "::1", "2001:db8::53"), Search: []string{"a.example", "b.example"},
		Options: []string{"ndots:2", "edns0", "trust-ad"}, Other: []string{"sortlist 192.0.2.0/24"}, Invalid: []string{"not-an-address"},
	}
	if diff := cmp.Diff(want, Parse([]byte(full)), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}

// settings are a file's lines that are not comments.
func settings(body []byte) string {
	var list []string
	for line := range strings.Lines(string(body)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			list = append(list, line)
		}
	}
	return strings.Join(list, "; ")
}

func TestFilesOfContainers(t *testing.T) {
	own := addresses("10.0.0.53", "127.0.0.1")
	for name, c := range map[string]struct {
		host    string
		network Network
		over    Overrides
		want    string
		says    string // in the comments
	}{
		"user-defined":                   {"nameserver 127.0.0.1\nsearch x.example\noptions edns0", Own, Overrides{}, "nameserver 127.0.0.11; search x.example; options edns0 ndots:0", "# ExtServers: [host(127.0.0.1)]"},
		"user-defined, own servers":      {"nameserver 192.0.2.1", Own, Overrides{Servers: own}, "nameserver 127.0.0.11; options ndots:0", "# ExtServers: [10.0.0.53 127.0.0.1]"},
		"user-defined, no servers":       {"", Own, Overrides{}, "nameserver 127.0.0.11; options ndots:0", "# NO EXTERNAL NAMESERVERS DEFINED"},
		"somebody's ndots":               {"options ndots:3", Own, Overrides{}, "nameserver 127.0.0.11; options ndots:3", ""},
		"the container's ndots":          {"options ndots:3", Own, Overrides{Options: []string{"ndots:1"}}, "nameserver 127.0.0.11; options ndots:1", "# Overrides: [options]"},
		"no number":                      {"options ndots:x ndots:-1 ndots timeout:2", Own, Overrides{}, "nameserver 127.0.0.11; options timeout:2 ndots:0", ""},
		"default network":                {full, Direct, Overrides{}, "nameserver 192.0.2.1; search a.example b.example; options ndots:2 edns0 trust-ad; sortlist 192.0.2.0/24", "# Invalid nameservers: [not-an-address]"},
		"default network with IPv6":      {full, Direct6, Overrides{}, "nameserver 192.0.2.1; nameserver 2001:db8::53; search a.example b.example; options ndots:2 edns0 trust-ad; sortlist 192.0.2.0/24", ""},
		"nothing but loopback":           {"nameserver 127.0.0.53\nnameserver ::1\nnameserver 2001:db8::53", Direct, Overrides{}, "nameserver 8.8.8.8; nameserver 8.8.4.4", "# Used default nameservers."},
		"nothing but loopback with IPv6": {"nameserver 127.0.0.53", Direct6, Overrides{}, "nameserver 8.8.8.8; nameserver 8.8.4.4; nameserver 2001:4860:4860::8888; nameserver 2001:4860:4860::8844", "# Used default nameservers."},
		"own servers stay":               {"nameserver 192.0.2.1", Direct, Overrides{Servers: own}, "nameserver 10.0.0.53; nameserver 127.0.0.1", "# Overrides: [nameservers]"},
		"no search":                      {"nameserver 192.0.2.1\nsearch x.example", Direct, Overrides{Search: []string{"."}}, "nameserver 192.0.2.1", "# Overrides: [search]"},
		"another search":                 {"nameserver 192.0.2.1\nsearch x.example", Direct, Overrides{Search: []string{"y.example", ".", "z.example"}}, "nameserver 192.0.2.1; search y.example z.example", ""},
		"the host's network":             {"nameserver 127.0.0.53\noptions edns0", Host, Overrides{}, "nameserver 127.0.0.53; options edns0", ""},
		"the host's network, own search": {"nameserver 127.0.0.53\noptions edns0", Host, Overrides{Search: []string{"y.example"}}, "nameserver 127.0.0.53; search y.example; options edns0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			host := Parse([]byte(c.host))
			before := Parse([]byte(c.host))
			body := host.For(c.network, c.over).File("/etc/resolv.conf")
			if got := settings(body); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if !strings.Contains(string(body), c.says) || !strings.Contains(string(body), "# Based on host file: '/etc/resolv.conf'") {
				t.Errorf("%q is not in\n%s", c.says, body)
			}
			if diff := cmp.Diff(before, host, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("the host's configuration was changed: %s", diff)
			}
		})
	}
}

func TestWhoChoseNdots(t *testing.T) {
	for _, c := range []struct {
		host string
		over []string
		want bool
	}{{"", nil, false}, {"options ndots:2", nil, true}, {"options ndots:0", nil, false}, {"options ndots:2", []string{"edns0"}, false}, {"", []string{"ndots:1"}, true}, {"options ndots:x", nil, false}} {
		if got := Parse([]byte(c.host)).Ndots(Overrides{Options: c.over}); got != c.want {
			t.Errorf("%q, %q: %v", c.host, c.over, got)
		}
	}
}

func TestOverridesOfAllAreLessSpecial(t *testing.T) {
	all := Overrides{addresses("192.0.2.1"), []string{"a.example"}, []string{"edns0"}}
	if got := (Overrides{Search: []string{"b.example"}}).Or(all); got.Search[0] != "b.example" || got.Servers[0] != all.Servers[0] || got.Options[0] != "edns0" {
		t.Errorf("%+v", got)
	}
}

func TestTheHostsFileIsReadWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "resolv.conf")
	h := NewHostFile(path)
	h.behind.path = filepath.Join(dir, "behind")
	read := func(want ...string) {
		t.Helper()
		c, _, err := h.Read()
		if err != nil || !slices.Equal(c.Servers, addresses(want...)) {
			t.Errorf("servers %v, %v, want %v", c.Servers, err, want)
		}
	}
	write := func(path, server string, age time.Duration) {
		t.Helper()
		if err := os.WriteFile(path, []byte("nameserver "+server+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	read() // none: nobody is known
	for i := range 9 {
		// In place, of the same length, faster than filesystems count.
		server := "192.0.2." + string(rune('1'+i))
		write(path, server, 0)
		read(server)
	}
	// Replaced, by one that looks as old.
	write(path+".new", "192.0.2.8", time.Hour)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	read("192.0.2.8")
	write(path, "127.0.0.53", 0)
	read("127.0.0.53") // nobody behind it
	write(h.behind.path, "192.0.2.53", 0)
	read("192.0.2.53")
	if _, from, _ := h.Read(); from != h.behind.path {
		t.Errorf("read from %s", from)
	}
	if err := os.WriteFile(path, []byte("nameserver 127.0.0.53\nnameserver 192.0.2.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	read("127.0.0.53", "192.0.2.1") // not the stub alone
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	read()
	// A link, as there is on hosts with systemd-resolved.
	if err := os.Symlink(h.behind.path, path); err != nil {
		t.Fatal(err)
	}
	read("192.0.2.53")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Read(); err == nil {
		t.Error("a directory was read")
	}
}

func TestAnOldFileIsReadOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := NewHostFile(path)
	deadline := time.Now().Add(coarse + 10*time.Second)
	for !h.main.sure {
		if time.Now().After(deadline) {
			t.Fatal("a file that nobody touches is read again and again")
		}
		if _, _, err := h.Read(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := testing.AllocsPerRun(100, func() { _, _, _ = h.Read() }); n > 5 {
		t.Errorf("reading again makes %v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("nameserver"))
	f.Fuzz(func(t *testing.T, body []byte) {
		c := Parse(body)
		for _, network := range []Network{Direct, Direct6, Own, Host} {
			made := c.For(network, Overrides{})
			again := Parse(made.File("/etc/resolv.conf"))
			if !slices.Equal(again.Servers, made.Servers) || !slices.Equal(again.Search, made.Search) || !slices.Equal(again.Options, made.Options) {
				t.Fatalf("%q is read as %+v, and back as %+v", body, made.Config, again)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	h := NewHostFile("/etc/resolv.conf")
	for b.Loop() {
		if _, _, err := h.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
