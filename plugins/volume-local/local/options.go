package local

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
)

// The options of Docker's driver of the same name: type, o and device are what
// mount(8) would be told, size is a limit.
const (
	optionType   = "type"
	optionO      = "o"
	optionDevice = "device"
	optionSize   = "size"
)

func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// checkOptions is Docker's judgement of a volume's options, in its words.
func checkOptions(options map[string]string, limits bool) error {
	for name := range options {
		switch name {
		case optionType, optionO, optionDevice, optionSize:
		default:
			return invalid("invalid option: %q", name)
		}
	}
	if options[optionType] == "cifs" && options[optionDevice] != "" {
		device, err := url.Parse(options[optionDevice])
		if err != nil {
			return invalid("error parsing mount device url: %v", err)
		}
		if device.Port() != "" {
			return invalid("port not allowed in CIFS device URL, include 'port' in 'o='")
		}
	}
	size, err := sizeOf(options)
	if err != nil {
		return err
	}
	if size > 0 && !limits {
		return invalid("quota size requested but no quota support")
	}
	for _, need := range []struct{ given, needed string }{
		{optionDevice, optionType}, {optionType, optionDevice}, {optionO, optionDevice}, {optionO, optionType},
	} {
		if _, given := options[need.given]; !given {
			continue
		}
		if _, there := options[need.needed]; !there {
			return invalid("missing required option: %q", need.needed)
		}
	}
	if size > 0 && mounted(options) {
		return invalid("option %q is for volumes without %q: a mounted filesystem has a size of its own", optionSize, optionType)
	}
	return nil
}

// sizeOf is a volume's limit in bytes, 0 for none.
func sizeOf(options map[string]string) (uint64, error) {
	text, ok := options[optionSize]
	if !ok {
		return 0, nil
	}
	size, err := units.RAMInBytes(text)
	if err != nil || size < 0 {
		return 0, invalid("invalid size: '%s'", text)
	}
	return uint64(size), nil
}

// mounted says whether a volume's data is a filesystem that has to be mounted.
func mounted(options map[string]string) bool {
	return options[optionType] != "" || options[optionDevice] != ""
}

// lookup answers the addresses of a host.
type lookup func(ctx context.Context, host string) ([]net.IPAddr, error)

// resolve gives the kernel, which knows no names, the address of a server: that
// of addr= for nfs and cifs, and that in the device for cifs.
func resolve(ctx context.Context, options map[string]string, find lookup) (device, o string, err error) {
	device, o = options[optionDevice], options[optionO]
	kind := options[optionType]
	if device == "" {
		return "", "", invalid("missing device in volume options")
	}
	if kind != "nfs" && kind != "cifs" {
		return device, o, nil
	}
	if name := valueOf(o, "addr"); name != "" {
		if net.ParseIP(name) != nil {
			return device, o, nil
		}
		address, err := addressOf(ctx, name, find)
		return device, strings.Replace(o, "addr="+name, "addr="+address, 1), err
	}
	if kind != "cifs" {
		return device, o, nil
	}
	share, err := url.Parse(device)
	if err != nil {
		return "", "", invalid("error parsing mount device url: %v", err)
	}
	if share.Host == "" || net.ParseIP(share.Host) != nil {
		return device, o, nil
	}
	address, err := addressOf(ctx, share.Host, find)
	return strings.Replace(device, share.Host, address, 1), o, err
}

func addressOf(ctx context.Context, name string, find lookup) (string, error) {
	addresses, err := find(ctx, name)
	if err == nil && len(addresses) == 0 {
		err = &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	if err != nil {
		return "", fmt.Errorf("error resolving passed in network volume address: %w", err)
	}
	for _, address := range addresses {
		if address.IP.To4() != nil {
			return address.String(), nil
		}
	}
	return addresses[0].String(), nil
}

// valueOf is the value of one of the comma separated options.
func valueOf(o, key string) string {
	for option := range strings.SplitSeq(o, ",") {
		if value, ok := strings.CutPrefix(option, key+"="); ok {
			return value
		}
	}
	return ""
}

// withoutPassword hides what the log and the user's terminal must not show.
func withoutPassword(text, o string) string {
	if password := valueOf(o, "password"); password != "" {
		return strings.ReplaceAll(text, "password="+password, "password=********")
	}
	return text
}
