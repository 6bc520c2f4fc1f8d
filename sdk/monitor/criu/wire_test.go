package criu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Answers as CRIU encodes them.
func TestParseResponse(t *testing.T) {
	for text, want := range map[string]response{
		"\x08\x02\x10\x01\x22\x03\x08\xd2\x09":                                                  {kind: restore, success: true, pid: 1234},
		"\x08\x06\x10\x01\x2a\x11\x0a\x0cpost-restore\x10\xd2\x09":                              {kind: notify, success: true, script: PostRestore, pid: 1234},
		"\x08\x01\x10\x00\x38\x01\x4a\x05words":                                                 {kind: dump, errno: 1},
		"\x08\x06\x10\x01\x2a\x16\x0a\x09post-dump\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01": {kind: notify, success: true, script: PostDump, pid: -1},
	} {
		got, err := parseResponse(message(text))
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"\x08", "\x22\x05\x08", "\x0d\x01\x02\x03\x04", "\x00\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if r, err := parseResponse(message(text)); !errors.Is(err, errMalformed) {
			t.Errorf("%q is %+v, %v", text, r, err)
		}
	}
}

// What is not set is not in the message: CRIU has its own defaults.
func TestEncodeOptions(t *testing.T) {
	if got := string(Options{}.encode(7, 8)); got != "\x08\x07\x48\x04\x60\x01\x88\x01\x08" {
		t.Errorf("no options are %q", got)
	}
	got := string(Options{External: []string{"mnt[/a]:b"}, Inherit: []Inherit{{"pipe:[1]", 4}}, CgroupMode: CgroupSoft}.encode(7, 8))
	for _, field := range []string{"\xaa\x02\x09mnt[/a]:b", "\xda\x01\x0c\x0a\x08pipe:[1]\x10\x04", "\xc0\x01\x01\x90\x02\x03"} {
		if !strings.Contains(got, field) {
			t.Errorf("%q lacks %q", got, field)
		}
	}
}

func FuzzParseResponse(f *testing.F) {
	f.Add([]byte("\x08\x06\x10\x01\x2a\x11\x0a\x0cpost-restore\x10\xd2\x09"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := parseResponse(body); err == nil && len(r.script) > len(body) {
			t.Errorf("%q has a script of %d bytes", body, len(r.script))
		}
	})
}

func TestExplain(t *testing.T) {
	log := filepath.Join(t.TempDir(), "dump.log")
	failed := &Failure{Operation: "dump"}
	if got := Explain(failed, log).Error(); got != "criu dump failed" {
		t.Errorf("without a log: %s", got)
	}
	body := "(00.000001) Version: 3.17\n(00.1)    12: Error (a.c:1): first\n(00.2) Warn  (b.c:2): nothing\n(00.3) Error (c.c:3): second\n"
	if err := os.WriteFile(log, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Explain(failed, log)
	if want := "criu dump failed (" + log + ": 12: Error (a.c:1): first; Error (c.c:3): second)"; err.Error() != want || !errors.Is(err, failed) {
		t.Errorf("explained: %s, want %s", err, want)
	}
}

func TestVersions(t *testing.T) {
	// type 10, success, version {major 3, minor 17}
	r, err := parseResponse(message{0x08, 10, 0x10, 1, 0x52, 4, 0x08, 3, 0x10, 17})
	if err != nil || r.kind != version || !r.success || r.version != (Version{3, 17}) {
		t.Errorf("%+v, %v", r, err)
	}
	for v, before := range map[Version]bool{{3, 17}: true, {2, 99}: true, {3, 19}: false, {4, 0}: false} {
		if v.Before(Version{3, 19}) != before {
			t.Errorf("%s before 3.19: %v", v, !before)
		}
	}
}
