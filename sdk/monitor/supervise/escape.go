package supervise

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

const hex = "0123456789abcdef"

// appendEscaped appends p as the inside of a JSON string; bytes that are no
// UTF-8 become U+FFFD.
func appendEscaped(dst, p []byte) []byte {
	for len(p) > 0 {
		n := plain(p)
		dst = append(dst, p[:n]...)
		if p = p[n:]; len(p) == 0 {
			break
		}
		c := p[0]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(p)
			switch {
			case r == utf8.RuneError && size == 1:
				dst = append(dst, `\ufffd`...)
			case r == '\u2028' || r == '\u2029': // as encoding/json does
				dst = append(dst, '\\', 'u', '2', '0', '2', hex[r&0xf])
			default:
				dst = append(dst, p[:size]...)
			}
			p = p[size:]
			continue
		}
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
		p = p[1:]
	}
	return dst
}

// plain counts the bytes at p's beginning that stand for themselves in JSON and
// are ASCII. It looks at eight at once.
func plain(p []byte) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	n := 0
	for ; len(p)-n >= 8; n += 8 {
		x := binary.LittleEndian.Uint64(p[n:])
		quote, slash := x^(ones*'"'), x^(ones*'\\')
		// A high bit is set for each byte that is not ASCII, below ' ', '"' or '\'; those
		// above the lowest may be wrong, by the borrow, and are not looked at.
		special := (x | (x-ones*' ')&^x | (quote-ones)&^quote | (slash-ones)&^slash) & highs
		if special != 0 {
			return n + bits.TrailingZeros64(special)/8
		}
	}
	for ; n < len(p); n++ {
		if c := p[n]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			break
		}
	}
	return n
}
