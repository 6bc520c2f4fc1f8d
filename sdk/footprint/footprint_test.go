package footprint

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// resident is the file-backed memory of this process in KiB.
func resident(t *testing.T) int {
	t.Helper()
	body, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no RssFile")
	return 0
}

func TestTheProgramsPagesGoAndComeBack(t *testing.T) {
	// All of the program's pages, as a start touches them.
	body, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if len(body) == 0 {
		t.Fatal("no maps")
	}
	before := resident(t)
	if err := Shrink(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t); after > before*3/4 {
		t.Errorf("%d KiB of %d are still there", after, before)
	}
	// Code that was dropped still runs.
	if _, err := strconv.Atoi("12x"); err == nil {
		t.Error("no error for a bad number")
	}
}

func TestOnlyCleanMappingsOfTheFileAreTaken(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-00a4e000 r-xp 00000000 fe:00 123 /bin/prog":           true,
		"00a4e000-01000000 r--p 0064e000 fe:00 123 /bin/prog":           true,
		"01000000-01080000 rw-p 00c00000 fe:00 123 /bin/prog":           false,
		"c000000000-c000400000 rw-p 00000000 00:00 0 ":                  false,
		"7f00-7f10 r--p 00000000 fe:00 9 /lib/other":                    false,
		"7ffd-7fff r-xp 00000000 00:00 0 [vdso]":                        false,
		"00400000-00a4e000 r-xp 00000000 fe:00 123 /bin/prog (deleted)": false,
		"zz-yy r-xp 00000000 fe:00 123 /bin/prog":                       false,
		"": false,
	} {
		if _, _, ok := clean(line, "/bin/prog"); ok != want {
			t.Errorf("%q: %v", line, ok)
		}
	}
}
