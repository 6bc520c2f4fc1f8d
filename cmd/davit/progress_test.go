package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
)

// stream is what an engine sends.
func stream(t *testing.T, list ...jsonstream.Message) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	for _, m := range list {
		if err := json.NewEncoder(&b).Encode(m); err != nil {
			t.Fatal(err)
		}
	}
	return &b
}

func at(id string, current, total int64) jsonstream.Message {
	return jsonstream.Message{ID: id, Status: "Downloading", Progress: &jsonstream.Progress{Current: current, Total: total}}
}

func said(id, status string) jsonstream.Message { return jsonstream.Message{ID: id, Status: status} }

func TestTotalsAreHonest(t *testing.T) {
	clock := time.Unix(0, 0)
	d := newDownloads(func() time.Time { clock = clock.Add(time.Second); return clock })
	var totals []jsonstream.Message
	for m, err := range d.withTotals(messages(stream(t,
		said("v1", "Pulling from team/app"),
		said("a", "Pulling fs layer"), said("b", "Pulling fs layer"), said("c", "Pulling fs layer"),
		said("a", "Already exists"),
		at("b", 1_000_000, 4_000_000),
		at("b", 3_000_000, 4_000_000), // 2 MB within a second
		at("c", 0, 6_000_000),         // now all sizes are known; the rate begins anew
		at("b", 4_000_000, 4_000_000),
		said("b", "Verifying Checksum"), said("b", "Download complete"),
		at("c", 3_000_000, 6_000_000),
		said("b", "Extracting"),
	))) {
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == totalID {
			totals = append(totals, m)
		}
	}
	want := []struct {
		status         string
		current, total int64
	}{
		{"1/3 layers", 1_000_000, 0},
		{"1/3 layers, 2MB/s", 3_000_000, 0},
		{"1/3 layers", 3_000_000, 10_000_000},
		{"1/3 layers, 1MB/s", 4_000_000, 10_000_000},
		{"2/3 layers, 500kB/s", 4_000_000, 10_000_000},
		{"2/3 layers, 1.333MB/s", 7_000_000, 10_000_000},
	}
	if len(totals) != len(want) {
		t.Fatalf("%d totals: %+v", len(totals), totals)
	}
	for i, w := range want {
		got := totals[i]
		if got.Status != w.status || got.Progress.Current != w.current || got.Progress.Total != w.total {
			t.Errorf("%d: %q %+v, want %+v", i, got.Status, *got.Progress, w)
		}
	}
}

func TestWaysToShowAPull(t *testing.T) {
	list := func() *bytes.Buffer {
		return stream(t, said("v1", "Pulling from team/app"), said("a", "Pulling fs layer"), at("a", 500, 1000), said("a", "Pull complete"), said("", "Status: done"))
	}
	for how, want := range map[string]string{
		"plain": "v1: Pulling from team/app\na: Pulling fs layer\na: Pull complete\nStatus: done\n",
		"auto":  "v1: Pulling from team/app\na: Pulling fs layer\na: Pull complete\nStatus: done\n",
		"json":  list().String(),
	} {
		var out bytes.Buffer
		if err := showPull(list(), &out, how); err != nil || out.String() != want {
			t.Errorf("%s: %v\n%s", how, err, out.String())
		}
	}
	var out bytes.Buffer
	if err := showPull(list(), &out, "tty"); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"500B/1kB", "\x1b[1A", "Total: 0/1 layers"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("tty: %q is not in %q", want, out.String())
		}
	}
	if err := showPull(list(), &out, "loud"); err == nil || !strings.Contains(err.Error(), "none of auto, json, plain, tty") {
		t.Errorf("loud: %v", err)
	}
	failed := stream(t, jsonstream.Message{Error: &jsonstream.Error{Message: "no"}})
	for _, how := range []string{"plain", "tty", "json"} {
		if err := showPull(bytes.NewReader(failed.Bytes()), &out, how); err == nil || err.Error() != "no" {
			t.Errorf("%s: %v", how, err)
		}
	}
	for _, how := range []string{"plain", "json"} {
		if err := showPull(strings.NewReader("{"), &out, how); err == nil {
			t.Errorf("%s: an answer that breaks off is none", how)
		}
	}
}
