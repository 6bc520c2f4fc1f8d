package supervise

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/davit-engine/davit/sdk/monitor"
)

type entry struct {
	Log, Stream string
	Time        time.Time
}

func entries(t *testing.T, path string) (list []entry) {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(body) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		list = append(list, e)
	}
	return list
}

func newLog(t *testing.T, size int64, files int) (*logFile, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(&monitor.Log{Path: path, MaxSize: size, MaxFile: files}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.file.Close() })
	return l, path
}

var now = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600))

func TestStreamsBecomeLines(t *testing.T) {
	l, path := newLog(t, 0, 1)
	out, errs := splitter{log: l, stream: "stdout"}, splitter{log: l, stream: "stderr"}
	out.write([]byte("one\ntw"), now)
	errs.write([]byte("other\n"), now)
	out.write([]byte("o\n\nthr"), now)
	out.write([]byte("ee"), now)
	out.close(now)
	want := []entry{{"one\n", "stdout", now}, {"other\n", "stderr", now}, {"two\n", "stdout", now}, {"\n", "stdout", now}, {"three", "stdout", now}}
	got := entries(t, path)
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i].Log != want[i].Log || got[i].Stream != want[i].Stream || !got[i].Time.Equal(now) {
			t.Errorf("entry %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestLongLinesAreCutAsDockerDoes(t *testing.T) {
	l, path := newLog(t, 0, 1)
	s := splitter{log: l, stream: "stdout"}
	long := strings.Repeat("x", maxLine+10)
	// In pieces that do not meet the cut.
	for i, piece := range strings.Split(long+"\nend\n", "") {
		s.write([]byte(piece), now.Add(time.Duration(i)))
	}
	got := entries(t, path)
	if len(got) != 3 || len(got[0].Log) != maxLine || got[1].Log != strings.Repeat("x", 10)+"\n" || got[2].Log != "end\n" {
		t.Fatalf("%d entries", len(got))
	}
	// Parts have the time of the first.
	if !got[0].Time.Equal(now.Add(maxLine-1)) || !got[1].Time.Equal(got[0].Time) || !got[2].Time.After(got[1].Time) {
		t.Errorf("times %v, %v, %v", got[0].Time, got[1].Time, got[2].Time)
	}
}

// TestPartsTogetherAreTheLine cuts lines in whatever pieces they are read:
// nothing is lost at the seams, whole characters least of all.
func TestPartsTogetherAreTheLine(t *testing.T) {
	text := strings.Repeat("x", maxLine-1) + strings.Repeat("\u20ac\U0001f600", 9000) + "\n" + strings.Repeat("y", maxLine) + "\n\n" + strings.Repeat("\u00e4", maxLine)
	for _, size := range []int{1, 7, maxLine - 1, maxLine, maxLine + 1, len(text)} {
		l, path := newLog(t, 0, 1)
		s := splitter{log: l, stream: "stdout"}
		for p := []byte(text); len(p) > 0; {
			n := min(size, len(p))
			s.write(p[:n], now)
			p = p[n:]
		}
		s.close(now)
		var got strings.Builder
		for _, e := range entries(t, path) {
			if len(e.Log) > maxLine {
				t.Errorf("read %d at once: a part has %d bytes", size, len(e.Log))
			}
			got.WriteString(e.Log)
		}
		if got.String() != text {
			t.Errorf("read %d at once: %d bytes became %d", size, len(text), got.Len())
		}
	}
}

func TestRotationKeepsTheNewestFiles(t *testing.T) {
	l, path := newLog(t, 1000, 3)
	s := splitter{log: l, stream: "stdout"}
	for i := range 200 {
		s.write([]byte(strings.Repeat("x", 10)+string(rune('a'+i%26))+"\n"), now)
	}
	total := 0
	for _, name := range []string{path, path + ".1", path + ".2"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 1000 {
			t.Errorf("%s has %d bytes", name, info.Size())
		}
		total += len(entries(t, name))
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("there are more files than wanted")
	}
	if last := entries(t, path); last[len(last)-1].Log != strings.Repeat("x", 10)+string(rune('a'+199%26))+"\n" || total < 20 {
		t.Errorf("the newest line is missing, or most are (%d left)", total)
	}
}

// TestALostDirectoryDoesNotStopTheContainer takes the log's place away: lines are
// lost, memory is not, and logging goes on when the place is back.
func TestALostDirectoryDoesNotStopTheContainer(t *testing.T) {
	l, path := newLog(t, 100, 2)
	s := splitter{log: l, stream: "stdout"}
	dir := filepath.Dir(path)
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		s.write([]byte("lost\n"), now)
	}
	if cap(l.buffer) > 1<<20 {
		t.Errorf("%d bytes are waiting for a log that is gone", cap(l.buffer))
	}
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	s.write([]byte("back\n"), now)
	if got := entries(t, path); got[len(got)-1].Log != "back\n" {
		t.Errorf("%+v", got)
	}
}

func FuzzEscaping(f *testing.F) {
	for _, seed := range []string{"plain", "\"quoted\\\"", "\x00\x1f\x7f", "äöü€😀", "\xff\xfe", "\u2028\u2029", "a\xc3"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got string
		if err := json.Unmarshal(append(appendEscaped([]byte{'"'}, raw), '"'), &got); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if want := strings.ToValidUTF8(string(raw), "\ufffd"); utf8.Valid(raw) && got != want {
			t.Fatalf("%q became %q", raw, got)
		}
	})
}

func BenchmarkLog(b *testing.B) {
	l, err := openLog(&monitor.Log{Path: filepath.Join(b.TempDir(), "log"), MaxSize: 100 << 20, MaxFile: 2}, nil)
	if err != nil {
		b.Fatal(err)
	}
	s := splitter{log: l, stream: "stdout"}
	lines := bytes.Repeat([]byte("a line of a usual length, as programs write them all day long\n"), 500)
	b.SetBytes(int64(len(lines)))
	for b.Loop() {
		s.write(lines, now)
	}
}
