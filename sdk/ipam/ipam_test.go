package ipam

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(s)
}

func TestPoolHandsOutEachAddressOnce(t *testing.T) {
	for _, test := range []struct {
		subnet, within string
		want           []string
	}{
		{"10.0.0.0/29", "", []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"}},
		{"10.0.0.0/24", "10.0.0.8/30", []string{"10.0.0.8", "10.0.0.9", "10.0.0.10", "10.0.0.11"}},
		{"10.0.0.4/31", "", []string{"10.0.0.4", "10.0.0.5"}},
		{"fd00::/126", "", []string{"fd00::1", "fd00::2", "fd00::3"}},
		{"255.255.255.252/30", "", []string{"255.255.255.253", "255.255.255.254"}},
	} {
		p, err := New(prefix(test.subnet), prefix(test.within))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for range test.want {
			a, err := p.Next()
			if err != nil {
				t.Fatalf("%s: %v", test.subnet, err)
			}
			got = append(got, a.String())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s within %q: %v, want %v", test.subnet, test.within, got, test.want)
		}
		if a, err := p.Next(); !errdefs.IsResourceExhausted(err) {
			t.Errorf("%s is exhausted but gives %s, %v", test.subnet, a, err)
		}
		p.Free(addr(test.want[0]))
		if a, err := p.Next(); err != nil || a.String() != test.want[0] {
			t.Errorf("%s after a free: %s, %v", test.subnet, a, err)
		}
	}
}

func TestFreedAddressesComeBackLast(t *testing.T) {
	p, err := New(prefix("10.0.0.0/24"), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	first, _ := p.Next()
	p.Free(first)
	if second, _ := p.Next(); second == first {
		t.Errorf("%s was given again at once: neighbours still have its old owner in their caches", first)
	}
}

func TestTake(t *testing.T) {
	p, err := New(prefix("10.0.0.0/24"), prefix("10.0.0.128/25"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Take(addr("10.0.0.5")); err != nil {
		t.Errorf("outside the range, inside the subnet: %v", err)
	}
	if err := p.Take(addr("10.0.0.5")); !errdefs.IsAlreadyExists(err) || err.Error() != "Address already in use" {
		t.Errorf("taken twice: %v", err)
	}
	if err := p.Take(addr("10.0.1.5")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("outside the subnet: %v", err)
	}
	if err := p.Take(addr("10.0.0.0")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("the network's own address: %v", err)
	}
	if err := p.Take(addr("10.0.0.255")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("the broadcast address: %v", err)
	}
	if _, err := New(prefix("10.0.0.0/24"), prefix("10.0.1.0/25")); !errdefs.IsInvalidArgument(err) {
		t.Errorf("range outside the subnet: %v", err)
	}
}

func TestBlocks(t *testing.T) {
	for _, test := range []struct {
		text  string
		first []string
		count int
	}{
		{"172.17.0.0/16", []string{"172.17.0.0/24", "172.17.1.0/24"}, 256},
		{"base=172.17.0.0/16,size=20", []string{"172.17.0.0/20", "172.17.16.0/20"}, 16},
		{"size=26,base=10.1.2.0/24", []string{"10.1.2.0/26", "10.1.2.64/26"}, 4},
		{"10.1.2.0/28", []string{"10.1.2.0/28"}, 1},
		{"fd00:1::/48", []string{"fd00:1::/64", "fd00:1:0:1::/64"}, 65536},
		{"base=255.255.255.0/24,size=25", []string{"255.255.255.0/25", "255.255.255.128/25"}, 2},
	} {
		b, err := ParseBlock(test.text)
		if err != nil {
			t.Fatal(err)
		}
		all := slices.Collect(b.Subnets())
		if len(all) != test.count {
			t.Errorf("%s: %d subnets, want %d", test.text, len(all), test.count)
		}
		for i, want := range test.first {
			if all[i].String() != want {
				t.Errorf("%s: subnet %d is %s, want %s", test.text, i, all[i], want)
			}
		}
	}
	for _, text := range []string{"", "10.0.0.0", "base=10.0.0.0/16,size=8", "base=10.0.0.0/16,size=31", "base=10.0.0.0/16,size=x", "base=fd00::/48,size=127", "bits=3,base=10.0.0.0/8", "10.0.0.0/31"} {
		if b, err := ParseBlock(text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, %v", text, b, err)
		}
	}
}

func FuzzParseBlock(f *testing.F) {
	f.Add("base=172.17.0.0/16,size=24")
	f.Add("fd00::/48")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBlock(text)
		if err != nil {
			return
		}
		for subnet := range b.Subnets() {
			if subnet.Bits() != b.Size || !b.Base.Contains(subnet.Addr()) {
				t.Fatalf("%q: subnet %s is not one of %v", text, subnet, b)
			}
			break
		}
	})
}
