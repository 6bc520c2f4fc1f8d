package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/mount"
)

func TestMountFlags(t *testing.T) {
	for text, want := range map[string]mount.Mount{
		"type=volume,src=v,dst=/x,volume-subpath=a/b,volume-nocopy,volume-driver=d,volume-opt=o=1,volume-label=k=v": {
			Type: mount.TypeVolume, Source: "v", Target: "/x", VolumeOptions: &mount.VolumeOptions{
				NoCopy: true, Subpath: "a/b", Labels: map[string]string{"k": "v"}, DriverConfig: &mount.Driver{Name: "d", Options: map[string]string{"o": "1"}},
			},
		},
		`type=volume,dst=/x,"volume-opt=o=a=1,b=2"`: {
			Type: mount.TypeVolume, Target: "/x", VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Options: map[string]string{"o": "a=1,b=2"}}},
		},
		"type=bind,source=/a,target=/x,readonly=true,bind-propagation=rprivate,bind-recursive=readonly": {
			Type: mount.TypeBind, Source: "/a", Target: "/x", ReadOnly: true, BindOptions: &mount.BindOptions{Propagation: mount.PropagationRPrivate, ReadOnlyForceRecursive: true},
		},
		"type=bind,source=/a,target=/x,bind-create-src,bind-recursive=disabled": {
			Type: mount.TypeBind, Source: "/a", Target: "/x", BindOptions: &mount.BindOptions{CreateMountpoint: true, NonRecursive: true},
		},
		"type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=1770": {
			Type: mount.TypeTmpfs, Target: "/x", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20, Mode: 0o1770},
		},
	} {
		got, err := parseMount(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", text, err, diff)
		}
	}
	for text, want := range map[string]string{
		"type=volume,src=v":                                            "target is required",
		"type=volume,dst=/x,tmpfs-size=1m":                             "cannot mix 'tmpfs-*' options with mount type 'volume'",
		"type=bind,src=/a,dst=/x,volume-nocopy":                        "cannot mix 'volume-*' options with mount type 'bind'",
		"type=bind,src=/a,dst=/x,bind-recursive=writable":              "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
		"type=bind,src=/a,dst=/x,ro,bind-recursive=readonly":           "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
		"type=bind,src=/a,dst=/x,bind-recursive=sometimes":             "invalid value for bind-recursive: sometimes",
		"type=bind,src=/a,dst=/x,colour=red":                           "unexpected key 'colour' in 'colour=red'",
		"type=bind,src=/a,dst=/x,bind-create-src=perhaps":              "invalid value for bind-create-src: perhaps",
		"type=bind,src=/a,dst=/x,bind-recursive=readonly,readonly=off": "invalid value for readonly: off",
	} {
		if _, err := parseMount(text); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func FuzzMountFlag(f *testing.F) {
	f.Add("type=bind,src=/a,dst=/x,ro")
	f.Add(`"volume-opt=o=a,b",dst=/x`)
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := parseMount(text); err == nil && m.Target == "" {
			t.Errorf("%q has no target", text)
		}
	})
}
