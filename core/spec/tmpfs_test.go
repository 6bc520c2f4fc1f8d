package spec

import (
	"strings"
	"testing"
)

func TestOptionsOfATmpfs(t *testing.T) {
	for wanted, want := range map[string]string{
		"":                   "noexec,nosuid,nodev",
		"exec":               "nosuid,nodev,exec",
		"exec,noexec":        "nosuid,nodev,noexec",
		"size=1m,mode=1777":  "noexec,nosuid,nodev,size=1m,mode=1777",
		"size=1m,size=2m":    "noexec,nosuid,nodev,size=2m",
		"rw,suid,dev,exec":   "rw,suid,dev,exec",
		"nosuid,uid=5,gid=6": "noexec,nodev,nosuid,uid=5,gid=6",
	} {
		var list []string
		if wanted != "" {
			list = strings.Split(wanted, ",")
		}
		got, err := TmpfsOptions(list)
		if err != nil || strings.Join(got, ",") != want {
			t.Errorf("%q becomes %q, %v; want %q", wanted, got, err, want)
		}
	}
	for _, wrong := range []string{"nosuch", "size", "exec=1", "context=x", ""} {
		_, err := TmpfsOptions([]string{wrong})
		refused(t, err, `invalid tmpfs option ["`+wrong+`"]`)
	}
}
