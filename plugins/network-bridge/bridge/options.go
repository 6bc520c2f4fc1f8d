package bridge

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/davit-engine/davit/sdk/network"
)

// Driver options, with the names that Docker's users know.
const (
	optionBridge     = "com.docker.network.bridge.name"
	optionDefault    = "com.docker.network.bridge.default_bridge"
	optionICC        = "com.docker.network.bridge.enable_icc"
	optionMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	optionBinding4   = "com.docker.network.bridge.host_binding_ipv4"
	optionMode4      = "com.docker.network.bridge.gateway_mode_ipv4"
	optionMode6      = "com.docker.network.bridge.gateway_mode_ipv6"
	optionMTU        = "com.docker.network.driver.mtu"
	optionPrefix     = "com.docker.network.container_iface_prefix"
	optionHost4      = "com.docker.network.host_ipv4"
	optionHost6      = "com.docker.network.host_ipv6"

	// Options of one endpoint.
	optionIfname  = "com.docker.network.endpoint.ifname"
	optionSysctls = "com.docker.network.endpoint.sysctls"
)

// Gateway modes: how a network's containers are reached from outside.
const (
	modeNAT         = "nat"             // only by published ports
	modeUnprotected = "nat-unprotected" // also directly, at any port
	modeRouted      = "routed"          // directly, at published ports; nothing is translated
)

// options are a network's driver options, read and checked.
type options struct {
	bridge       string // name of the bridge; empty: the driver's choice
	isDefault    bool
	mtu          int // 0: the configured one
	icc          bool
	masquerade   bool
	binding4     netip.Addr // where ports that name no address are published
	mode4, mode6 string
	prefix       string     // of interface names in containers; empty: "eth"
	host4, host6 netip.Addr // source of outgoing packets; zero: the kernel's choice
}

// linkName is what the kernel takes as an interface's name.
var linkName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,15}$`)

func readOptions(given map[string]string) (options, error) {
	o := options{icc: true, masquerade: true, mode4: modeNAT, mode6: modeNAT}
	for key, value := range given {
		var err error
		switch key {
		case optionBridge:
			if o.bridge = value; !linkName.MatchString(value) {
				err = fmt.Errorf("an interface's name has 1 to 15 letters, digits, '_', '.' or '-'")
			}
		case optionDefault:
			o.isDefault, err = strconv.ParseBool(value)
		case optionICC:
			o.icc, err = strconv.ParseBool(value)
		case optionMasquerade:
			o.masquerade, err = strconv.ParseBool(value)
		case optionBinding4:
			o.binding4, err = address4(value)
		case optionMode4:
			o.mode4, err = gatewayMode(value)
		case optionMode6:
			o.mode6, err = gatewayMode(value)
		case optionMTU:
			// 68 is the least that IPv4 allows (RFC 791).
			if o.mtu, err = strconv.Atoi(value); err == nil && (o.mtu < 68 || o.mtu > 65535) {
				err = fmt.Errorf("not between 68 and 65535")
			}
		case optionPrefix:
			if o.prefix = value; !linkName.MatchString(value + "00") {
				err = fmt.Errorf("not the beginning of an interface's name")
			}
		case optionHost4:
			o.host4, err = address4(value)
		case optionHost6:
			if o.host6, err = netip.ParseAddr(value); err == nil && !o.host6.Is6() {
				err = fmt.Errorf("not an IPv6 address")
			}
		default:
			known := []string{optionBridge, optionICC, optionMasquerade, optionBinding4, optionMode4, optionMode6, optionMTU, optionPrefix, optionHost4, optionHost6}
			slices.Sort(known)
			return o, fmt.Errorf("option %q is not known to driver bridge; known: %s: %w", key, strings.Join(known, ", "), errdefs.ErrInvalidArgument)
		}
		if err != nil {
			return o, fmt.Errorf("invalid value %q of option %s: %w: %w", value, key, err, errdefs.ErrInvalidArgument)
		}
	}
	return o, nil
}

func address4(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err == nil && !a.Is4() {
		err = fmt.Errorf("not an IPv4 address")
	}
	return a, err
}

func gatewayMode(text string) (string, error) {
	switch text {
	case modeNAT, modeUnprotected, modeRouted:
		return text, nil
	case "":
		return modeNAT, nil
	}
	return "", fmt.Errorf("want %s, %s or %s", modeNAT, modeUnprotected, modeRouted)
}

// endpointOptions are the driver options of one endpoint.
type endpointOptions struct {
	ifname  string   // wanted interface name; empty: the engine's choice
	sysctls []sysctl // of the endpoint's interface
}

// sysctl is a kernel parameter of an interface.
type sysctl struct {
	path  string // below /proc/sys, with the interface's name as IFNAME
	value string
}

func readEndpointOptions(given map[string]string) (endpointOptions, error) {
	var o endpointOptions
	for key, value := range given {
		var err error
		switch key {
		case optionIfname:
			if o.ifname = value; !linkName.MatchString(value) {
				err = fmt.Errorf("an interface's name has 1 to 15 letters, digits, '_', '.' or '-'")
			}
		case optionSysctls:
			o.sysctls, err = readSysctls(value)
		default:
			err = fmt.Errorf("not known to driver bridge; known: %s, %s", optionIfname, optionSysctls)
		}
		if err != nil {
			return o, fmt.Errorf("invalid endpoint option %s=%s: %w: %w", key, value, err, errdefs.ErrInvalidArgument)
		}
	}
	return o, nil
}

// readSysctls reads "net.ipv4.conf.IFNAME.log_martians=1,…": parameters of the
// endpoint's own interface, and no others.
func readSysctls(text string) ([]sysctl, error) {
	var list []sysctl
	for entry := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(entry, "=")
		parts := strings.Split(key, ".")
		if !ok || len(parts) != 5 {
			return nil, fmt.Errorf("want net.FAMILY.CATEGORY.IFNAME.NAME=VALUE, got %q", entry)
		}
		if parts[0] != "net" || !slices.Contains([]string{"ipv4", "ipv6", "mpls"}, parts[1]) || !slices.Contains([]string{"conf", "neigh"}, parts[2]) || parts[3] != "IFNAME" || !linkName.MatchString(strings.Repeat("x", min(1, len(parts[4])))) || strings.ContainsAny(parts[4], "/") {
			return nil, fmt.Errorf("sysctl %q is not one of the endpoint's interface (net.ipv4.conf.IFNAME.…)", key)
		}
		list = append(list, sysctl{strings.Join(parts, "/"), value})
	}
	return list, nil
}

// interfaceName is the name of an endpoint's interface in its namespace.
func (o options) interfaceName(a network.Attachment, own endpointOptions) string {
	if own.ifname != "" {
		return own.ifname
	}
	if number, ok := strings.CutPrefix(a.Interface, "eth"); ok && o.prefix != "" {
		return o.prefix + number
	}
	return a.Interface
}
