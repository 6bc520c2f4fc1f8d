package cgroup

import (
	"context"
	"fmt"
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// BenchmarkCreateAndDelete is what a container's group costs at its start and end.
func BenchmarkCreateAndDelete(b *testing.B) {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "b", Access: "m"}}
	for minor := range int64(9) {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(int64(1)), Minor: &minor, Access: "rwm"})
	}
	parent := fmt.Sprintf("/davit-bench-%d", os.Getpid())
	if _, err := Create(parent, nil); err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		i++
		g, err := Create(fmt.Sprintf("%s/%d", parent, i), &specs.LinuxResources{Devices: rules})
		if err != nil {
			b.Fatal(err)
		}
		if err := g.Delete(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	g, err := Open(parent)
	if err == nil {
		err = g.Delete(context.Background())
	}
	if err != nil {
		b.Fatal(err)
	}
}
