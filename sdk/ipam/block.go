package ipam

import (
	"fmt"
	"iter"
	"net/netip"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Prefix lengths of subnets that are cut from a block whose text names none.
const (
	defaultSize4 = 24
	defaultSize6 = 64
)

// Block is an address range from which subnets of one size are cut.
type Block struct {
	Base netip.Prefix
	Size int // prefix length of each subnet
}

// ParseBlock reads "base=172.17.0.0/16,size=24", the form of Docker's
// default-address-pool, or a bare prefix, which is cut into /24 or, for IPv6, /64
// subnets.
func ParseBlock(text string) (Block, error) {
	invalid := func(why string) error {
		return fmt.Errorf("address pool %q: %s: %w", text, why, errdefs.ErrInvalidArgument)
	}
	base, size, sized := text, "", false
	if strings.Contains(text, "=") {
		base = ""
		for field := range strings.SplitSeq(text, ",") {
			key, value, _ := strings.Cut(field, "=")
			switch key {
			case "base":
				base = value
			case "size":
				size, sized = value, true
			default:
				return Block{}, invalid(fmt.Sprintf("%q is neither base nor size", key))
			}
		}
	}
	prefix, err := netip.ParsePrefix(base)
	if err != nil {
		return Block{}, invalid("want base=ADDRESS/BITS,size=BITS")
	}
	b := Block{Base: prefix.Masked(), Size: defaultSize4}
	if prefix.Addr().Is6() {
		b.Size = defaultSize6
	}
	b.Size = max(b.Size, prefix.Bits())
	if sized {
		if b.Size, err = strconv.Atoi(size); err != nil {
			return Block{}, invalid("size is not a number of bits")
		}
	}
	// The smallest subnet has room for a gateway and a container.
	if b.Size < prefix.Bits() || b.Size > prefix.Addr().BitLen()-2 {
		return Block{}, invalid(fmt.Sprintf("size must be between %d and %d", prefix.Bits(), prefix.Addr().BitLen()-2))
	}
	return b, nil
}

// Subnets yields the block's subnets in ascending order.
func (b Block) Subnets() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		last := Last(b.Base)
		for at := b.Base.Masked().Addr(); ; {
			subnet := netip.PrefixFrom(at, b.Size)
			if !yield(subnet) {
				return
			}
			end := Last(subnet)
			if end == last || !end.IsValid() {
				return
			}
			at = end.Next()
		}
	}
}
