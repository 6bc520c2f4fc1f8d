package dns

import (
	"encoding/hex"
	"net/netip"
	"strings"
)

// reverseAddress reads the address of a reverse name ("4.3.2.1.in-addr.arpa", or
// 32 hexadecimal digits below "ip6.arpa", RFC 3596).
func reverseAddress(name string) (netip.Addr, bool) {
	name = strings.ToLower(name)
	if digits, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		return reverseAddress6(digits)
	}
	labels, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(labels, ".")
	if len(parts) != 4 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	return a, err == nil
}

// reverseAddress6 reads the digits of an IPv6 address, the last one first.
func reverseAddress6(digits string) (netip.Addr, bool) {
	const length = 63 // 32 digits and the dots between them
	if len(digits) != length {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := length - 1; i >= 0; i-- {
		switch isDot := i%2 == 1; {
		case isDot != (digits[i] == '.'):
			return netip.Addr{}, false
		case !isDot:
			text.WriteByte(digits[i])
		}
	}
	var b [16]byte
	if _, err := hex.Decode(b[:], []byte(text.String())); err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16(b), true
}
