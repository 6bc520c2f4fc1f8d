package plugin

import "testing"

// BenchmarkCall is the price of one unary call through the host: what every
// driver call on the way of `davit run` costs beside its work.
func BenchmarkCall(b *testing.B) {
	for name, mtls := range map[string]bool{"plain": false, "mtls": true} {
		b.Run(name, func(b *testing.B) {
			bn := newBench(b)
			bn.o.AutoMTLS = mtls
			bn.install(binary(b, "odd"), Volume, "odd", nil)
			h := bn.start()
			d, err := h.Volume("")
			if err != nil {
				b.Fatal(err)
			}
			if err := h.Ready(b.Context()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := d.Get(b.Context(), "x"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
