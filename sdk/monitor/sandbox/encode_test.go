package sandbox

import (
	"bytes"
	"reflect"
	"testing"
)

func TestAConfigurationIsDecodedAsItWas(t *testing.T) {
	for name, c := range map[string]Config{
		"an exec":          {Process: Process{Args: []string{"a"}, Env: []string{"b=c"}, Cwd: "/"}, Join: Namespaces},
		"a filter":         {Process: Process{Args: []string{"a"}}, Seccomp: &Seccomp{Program: []byte{1, 2, 3, 0, 255, '{', '"', 0}, Flags: 3, Notify: true}},
		"an empty program": {Seccomp: &Seccomp{Flags: 1}},
		"a container":      {Container: &Container{Rootfs: "/r", Sysctls: map[string]string{"a": "b"}}, Extra: 2},
	} {
		before := c.Seccomp
		encoded, err := c.Encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := decode(encoded); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c)
		}
		if c.Seccomp != before || before != nil && name == "a filter" && len(before.Program) == 0 {
			t.Errorf("%s: encoding changed the configuration", name)
		}
		for cut := range len(encoded) {
			if got, err := decode(encoded[:cut]); err == nil && reflect.DeepEqual(got, c) {
				t.Errorf("%s: whole, though cut to %d of %d bytes", name, cut, len(encoded))
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range []Config{{Seccomp: &Seccomp{Program: []byte("12345678")}}, {Container: &Container{}}} {
		encoded, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		c, err := decode(encoded)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if once, err := got.Encode(); err != nil || !bytes.Equal(once, again) {
			t.Errorf("%q, %v, want %q", once, err, again)
		}
	})
}
