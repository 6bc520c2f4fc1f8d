package cgroup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/davit-engine/davit/sdk/runtime"
)

// field is a number of a file: its only one, or the one of a key.
func field(t *testing.T, path, key string) uint64 {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(string(body))
	if key != "" {
		text = strings.TrimPrefix(line(key, "")(text), key+" ")
	}
	if text == "max" {
		return 0
	}
	value, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s %s: %v", path, key, err)
	}
	return value
}

// TestStatsAreWhatTheFilesSay compares a busy but stopped group with its files.
func TestStatsAreWhatTheFilesSay(t *testing.T) {
	disk := t.TempDir() + "/blob" // not below /tmp if that is a tmpfs: what counts is what the files say
	g := newGroup(t, &specs.LinuxResources{
		CPU: &specs.LinuxCPU{Quota: ptr(int64(5000)), Period: ptr(uint64(10000))}, Pids: &specs.LinuxPids{Limit: ptr(int64(50))},
		Memory: &specs.LinuxMemory{Limit: ptr(int64(128 << 20))},
	})
	mark := t.TempDir() + "/done"
	sleeper(t, g, "dd if=/dev/zero of="+disk+" bs=1M count=4 conv=fsync 2>/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 100 & : > "+mark+"; sleep 100")
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(mark); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the work does not end")
		}
	}
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The kernel accounts what is under way; it is still soon.
	var s = stable(t, g)
	dir := func(controller string) string {
		if g.Version() == 2 {
			return g.procs()
		}
		return g.hierarchies.(*legacy).dir(controller)
	}
	type expectation struct {
		what       string
		got        uint64
		controller string
		file, key  string
		scale      uint64
	}
	list := []expectation{
		{"pids", s.Pids.Current, "pids", "pids.current", "", 1},
		{"pids limit", s.Pids.Limit, "pids", "pids.max", "", 1},
		{"periods", s.CPU.Periods, "cpu", "cpu.stat", "nr_periods", 1},
		{"throttled periods", s.CPU.ThrottledPeriods, "cpu", "cpu.stat", "nr_throttled", 1},
	}
	if g.Version() == 1 {
		list = append(list,
			expectation{"CPU", s.CPU.Total, "cpuacct", "cpuacct.usage", "", 1},
			expectation{"throttled", s.CPU.ThrottledTime, "cpu", "cpu.stat", "throttled_time", 1},
			expectation{"memory", s.Memory.Usage, "memory", "memory.usage_in_bytes", "", 1},
			expectation{"most memory", s.Memory.MaxUsage, "memory", "memory.max_usage_in_bytes", "", 1},
			expectation{"memory limit", s.Memory.Limit, "memory", "memory.limit_in_bytes", "", 1},
			expectation{"failures", s.Memory.Failures, "memory", "memory.failcnt", "", 1})
	} else {
		list = append(list,
			expectation{"CPU", s.CPU.Total, "", "cpu.stat", "usage_usec", 1000},
			expectation{"user", s.CPU.User, "", "cpu.stat", "user_usec", 1000},
			expectation{"system", s.CPU.System, "", "cpu.stat", "system_usec", 1000},
			expectation{"throttled", s.CPU.ThrottledTime, "", "cpu.stat", "throttled_usec", 1000},
			expectation{"memory", s.Memory.Usage, "", "memory.current", "", 1},
			expectation{"memory limit", s.Memory.Limit, "", "memory.max", "", 1})
		if _, err := os.Stat(filepath.Join(g.procs(), "memory.peak")); err == nil {
			list = append(list, expectation{"most memory", s.Memory.MaxUsage, "", "memory.peak", "", 1})
		}
	}
	for _, e := range list {
		if want := field(t, filepath.Join(dir(e.controller), e.file), e.key) * e.scale; e.got != want {
			t.Errorf("%s is %d, %s %s has %d", e.what, e.got, e.file, e.key, want)
		}
	}
	if s.CPU.Total == 0 || s.CPU.Periods == 0 || s.Memory.Usage == 0 || s.Pids.Current < 2 {
		t.Errorf("the group did nothing: %+v", s)
	}
	body, err := os.ReadFile(filepath.Join(dir("memory"), "memory.stat"))
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(body), "\n"); len(s.Memory.Detail) != lines {
		t.Errorf("%d fields of memory.stat, it has %d", len(s.Memory.Detail), lines)
	}
	for key, value := range s.Memory.Detail {
		if want := field(t, filepath.Join(dir("memory"), "memory.stat"), key); want != value {
			t.Errorf("memory.stat %s: %d, want %d", key, value, want)
		}
	}
	expectIO(t, g, dir("blkio"))
}

// stable reads until nothing changes any more.
func stable(t *testing.T, g *Group) (s runtime.Stats) {
	t.Helper()
	for range 500 {
		before, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		if s, err = g.Stats(); err != nil {
			t.Fatal(err)
		}
		if s.CPU.Total == before.CPU.Total && s.CPU.Periods == before.CPU.Periods && s.Memory.Usage == before.Memory.Usage && s.Pids == before.Pids {
			return s
		}
	}
	t.Fatal("a frozen group's numbers go on changing")
	return s
}

// expectIO compares bytes and operations of each device.
func expectIO(t *testing.T, g *Group, dir string) {
	t.Helper()
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	type key struct {
		device, op string
	}
	bytes, ios := map[key]uint64{}, map[key]uint64{}
	for _, e := range s.BlkIO {
		k := key{device(int64(e.Major), int64(e.Minor)), strings.ToLower(e.Op)}
		bytes[k], ios[k] = e.Bytes, e.IOs
	}
	compare := func(k key, gotMap map[key]uint64, text string) {
		want, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if gotMap[k] != want {
			t.Errorf("%v: %d, the file has %d", k, gotMap[k], want)
		}
	}
	if g.Version() == 2 {
		body, err := os.ReadFile(filepath.Join(dir, "io.stat"))
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(body)) {
			words := strings.Fields(l)
			for _, word := range words[1:] {
				name, value, _ := strings.Cut(word, "=")
				switch name {
				case "rbytes":
					compare(key{words[0], "read"}, bytes, value)
				case "wbytes":
					compare(key{words[0], "write"}, bytes, value)
				case "rios":
					compare(key{words[0], "read"}, ios, value)
				case "wios":
					compare(key{words[0], "write"}, ios, value)
				}
			}
		}
		return
	}
	for file, got := range map[string]map[key]uint64{"blkio.throttle.io_service_bytes_recursive": bytes, "blkio.throttle.io_serviced_recursive": ios} {
		body, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(body)) {
			if words := strings.Fields(l); len(words) == 3 {
				compare(key{words[0], strings.ToLower(words[1])}, got, words[2])
			}
		}
	}
}

func TestWantOfMemoryIsSeen(t *testing.T) {
	g := newGroup(t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}})
	if kills, err := g.OOMKills(); err != nil || kills != 0 {
		t.Fatalf("%d kills, %v", kills, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() { ended <- g.WatchOOM(ctx, func() { events <- struct{}{} }) }()
	// The watch must stand before the memory is gone: the shell waits for a file.
	mark := t.TempDir() + "/go"
	cmd := sleeper(t, g, "while [ ! -e "+mark+" ]; do sleep 0.01; done; dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; sleep 100")
	time.Sleep(50 * time.Millisecond)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-events:
	case err := <-ended:
		t.Fatalf("the watch ended: %v", err)
	case <-time.After(60 * time.Second):
		t.Fatal("nobody was told")
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		kills, err := g.OOMKills()
		if err != nil {
			t.Fatal(err)
		}
		if kills > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no kill is counted")
		}
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	cancel()
	if err := <-ended; err != context.Canceled { //nolint:errorlint // the very one
		t.Errorf("the watch ended with %v", err)
	}
}

func TestAWatchEndsWithItsGroup(t *testing.T) {
	g := newGroup(t, nil)
	below, err := Create(g.path+"/below", nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- below.WatchOOM(t.Context(), func() { t.Error("no memory is wanting") }) }()
	time.Sleep(20 * time.Millisecond)
	if err := below.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g.Version() == 1 { // v2 says nothing of a group that never had a process
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the watch goes on")
		}
	}
	if err := below.WatchOOM(t.Context(), nil); !errdefs.IsNotFound(err) {
		t.Errorf("watching what is gone: %v", err)
	}
}

// TestManyGroupsAreWatched: more than a user may have inotify instances.
func TestManyGroupsAreWatched(t *testing.T) {
	parent := newGroup(t, nil)
	var w OOMWatcher
	ctx, cancel := context.WithCancel(t.Context())
	below := func(name string, r *specs.LinuxResources) *Group {
		g, err := Create(parent.path+"/"+name, r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := g.Delete(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return g
	}
	const groups = 200
	ended := make(chan error, groups)
	for i := range groups {
		g := below(fmt.Sprintf("g%d", i), nil)
		go func() { ended <- w.Watch(ctx, g, func() { t.Error("no memory is wanting") }) }()
	}
	hungry := below("hungry", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}})
	told := make(chan struct{}, 100)
	last := make(chan error, 1)
	go func() { last <- w.Watch(ctx, hungry, func() { told <- struct{}{} }) }()
	mark := t.TempDir() + "/go"
	cmd := sleeper(t, hungry, "while [ ! -e "+mark+" ]; do sleep 0.01; done; dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; sleep 100")
	time.Sleep(50 * time.Millisecond)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case <-told:
	case err := <-ended:
		t.Errorf("a watch ended: %v", err)
	case err := <-last:
		t.Errorf("the watch ended: %v", err)
	case <-time.After(60 * time.Second):
		t.Error("nobody was told")
	}
	if err := hungry.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	cancel()
	for range groups {
		if err := <-ended; err != context.Canceled { //nolint:errorlint // the very one
			t.Errorf("a watch ended with %v", err)
		}
	}
	<-last
	w.Close()
}

func TestPressure(t *testing.T) {
	p, err := parsePressure("some avg10=1.50 avg60=0.20 avg300=0.05 total=12345\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=99\n")
	want := Pressure{Some: Stall{1.5, 0.2, 0.05, 12345 * time.Microsecond}, Full: Stall{Avg10: 0.5, Total: 99 * time.Microsecond}}
	if err != nil || p != want {
		t.Errorf("%+v %v", p, err)
	}
	for _, body := range []string{"half avg10=1", "some avg10=x", "some total=1.5"} {
		if _, err := parsePressure(body); err == nil {
			t.Errorf("%q is accepted", body)
		}
	}
	g := newGroup(t, nil)
	all, err := g.Pressures()
	if err != nil {
		t.Fatal(err)
	}
	if g.Version() == 1 {
		if len(all) != 0 {
			t.Errorf("v1 has pressures: %v", all)
		}
		return
	}
	if _, err := os.Stat(filepath.Join(g.procs(), "memory.pressure")); err == nil && len(all) != 3 {
		if _, err := os.ReadFile(filepath.Join(g.procs(), "memory.pressure")); err == nil {
			t.Errorf("%v", all)
		}
	}
}

func FuzzFiles(f *testing.F) {
	for _, seed := range []string{
		"nr_periods 5\nnr_throttled 0\n", "cache 0\nrss 1\n", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
		"8:0 Read 4096\n8:0 Total 4096\nTotal 4096\n", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", "a *:* rwm\n", "c 1:3 rwm\nb *:* m\n",
		`33 30 0:29 / /sys/fs/cgroup/cpu\040x rw shared:7 - cgroup cgroup rw,cpu,cpuacct`, "11:memory:/user\n0::/\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		values := parseKeyed(body)
		for key := range values {
			if !strings.Contains(body, key) {
				t.Errorf("key %q is not in the file", key)
			}
		}
		if list, err := parseMountinfo(strings.NewReader(body)); err == nil {
			for _, m := range list {
				if len(m.controllers) == 0 {
					t.Errorf("%+v", m)
				}
			}
		}
		if list, err := parseDeviceList(body); err == nil {
			for _, e := range list.exceptions {
				if _, err := parseDeviceList(e.String()); err != nil {
					t.Errorf("%s: %v", e, err)
				}
			}
		}
		_, _ = parsePressure(body)
		for _, e := range append(parseIO(body), parseBlkIO(body, body)...) {
			if !strings.Contains(body, ":") {
				t.Errorf("%+v has no device", e)
			}
		}
		_ = line("8:0", "none")(body)
	})
}
