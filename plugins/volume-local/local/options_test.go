package local

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/containerd/errdefs"
)

func TestOptionsAreJudgedInDockersWords(t *testing.T) {
	for name, c := range map[string]struct {
		options map[string]string
		limits  bool
		want    string
	}{
		"none":             {nil, false, ""},
		"all":              {map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, false, ""},
		"unknown":          {map[string]string{"colour": "red"}, false, `invalid option: "colour"`},
		"device alone":     {map[string]string{"device": "/x"}, false, `missing required option: "type"`},
		"type alone":       {map[string]string{"type": "nfs"}, false, `missing required option: "device"`},
		"o alone":          {map[string]string{"o": "bind"}, false, `missing required option: "device"`},
		"o without type":   {map[string]string{"o": "bind", "device": "/x"}, false, `missing required option: "type"`},
		"size, no limits":  {map[string]string{"size": "1m"}, false, "quota size requested but no quota support"},
		"size":             {map[string]string{"size": "1m"}, true, ""},
		"no size":          {map[string]string{"size": "0"}, false, ""},
		"size of nonsense": {map[string]string{"size": "much"}, true, "invalid size: 'much'"},
		"size below 0":     {map[string]string{"size": "-1"}, true, "invalid size: '-1'"},
		"size of a mount":  {map[string]string{"size": "1m", "type": "tmpfs", "device": "x"}, true, `option "size" is for volumes without "type": a mounted filesystem has a size of its own`},
		"cifs port":        {map[string]string{"type": "cifs", "device": "//host:445/share"}, false, "port not allowed in CIFS device URL, include 'port' in 'o='"},
	} {
		err := checkOptions(c.options, c.limits)
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want || !errdefs.IsInvalidArgument(err)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestServersAreResolved(t *testing.T) {
	find := func(_ context.Context, host string) ([]net.IPAddr, error) {
		switch host {
		case "both":
			return []net.IPAddr{{IP: net.ParseIP("2001:db8::1")}, {IP: net.ParseIP("192.0.2.1")}}, nil
		case "six":
			return []net.IPAddr{{IP: net.ParseIP("2001:db8::1")}}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host}
	}
	for _, c := range []struct{ kind, device, o, wantDevice, wantO, fails string }{
		{"nfs", ":/x", "addr=both,rw", ":/x", "addr=192.0.2.1,rw", ""},
		{"nfs", ":/x", "rw,addr=six", ":/x", "rw,addr=2001:db8::1", ""},
		{"nfs", ":/x", "addr=192.0.2.7", ":/x", "addr=192.0.2.7", ""},
		{"nfs", ":/x", "rw", ":/x", "rw", ""},
		{"nfs", ":/x", "addr=nosuch", "", "", "error resolving passed in network volume address: lookup nosuch: no such host"},
		{"cifs", "//both/share", "username=u", "//192.0.2.1/share", "username=u", ""},
		{"cifs", "//both/share", "addr=six", "//both/share", "addr=2001:db8::1", ""},
		{"cifs", "//nosuch/share", "", "", "", "error resolving passed in network volume address: lookup nosuch: no such host"},
		{"ext4", "/dev/x", "addr=both", "/dev/x", "addr=both", ""},
		{"nfs", "", "addr=both", "", "", "missing device in volume options"},
	} {
		device, o, err := resolve(t.Context(), map[string]string{"type": c.kind, "device": c.device, "o": c.o}, find)
		if c.fails != "" {
			if err == nil || err.Error() != c.fails {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil || device != c.wantDevice || o != c.wantO {
			t.Errorf("%+v: %q %q %v", c, device, o, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := resolve(ctx, map[string]string{"type": "nfs", "device": ":/x", "o": "addr=name.invalid"}, net.DefaultResolver.LookupIPAddr); err == nil || errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzOptions(f *testing.F) {
	f.Add("nfs", ":/x", "addr=a,password=p", "1m")
	f.Add("cifs", "//a:1/b", "", "")
	f.Fuzz(func(t *testing.T, kind, device, o, size string) {
		options := map[string]string{"type": kind, "device": device, "o": o, "size": size}
		if err := checkOptions(options, true); err != nil {
			return
		}
		_, _, _ = resolve(t.Context(), options, func(context.Context, string) ([]net.IPAddr, error) { return nil, nil })
	})
}
