package event

import (
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/davit-engine/davit/core/filter"
)

func TestEventsMatchByWhatTheyAreAbout(t *testing.T) {
	actor := func(id string, attributes ...string) events.Actor {
		a := events.Actor{ID: id, Attributes: map[string]string{}}
		for i := 0; i < len(attributes); i += 2 {
			a.Attributes[attributes[i]] = attributes[i+1]
		}
		return a
	}
	container := events.Message{Type: "container", Action: "start", Scope: "local", Actor: actor("abc123", "name", "web", "image", "alpine", "app", "shop")}
	exec := events.Message{Type: "container", Action: "exec_start: ls -l", Scope: "local", Actor: actor("abc123", "name", "web")}
	image := events.Message{Type: "image", Action: "pull", Scope: "local", Actor: actor("alpine:latest", "name", "alpine")}
	volume := events.Message{Type: "volume", Action: "create", Scope: "local", Actor: actor("data")}
	network := events.Message{Type: "network", Action: "connect", Scope: "local", Actor: actor("def456", "name", "front", "container", "abc123")}
	for _, c := range []struct {
		field  string
		values []string
		m      events.Message
		want   bool
	}{
		{"type", []string{"container"}, container, true},
		{"type", []string{"image", "container"}, container, true},
		{"type", []string{"image"}, container, false},
		{"type", []string{"cont"}, container, false},
		{"event", []string{"start"}, container, true},
		{"event", []string{"stop", "start"}, container, true},
		{"event", []string{"stop"}, container, false},
		{"event", []string{"star"}, container, false},
		{"event", []string{"exec_start"}, exec, true},
		{"event", []string{"exec_start: ls -l"}, exec, true},
		{"event", []string{"exec_start: ls"}, exec, false},
		{"container", []string{"abc123"}, container, true},
		{"container", []string{"abc"}, container, true},
		{"container", []string{"web"}, container, true},
		{"container", []string{"we"}, container, false},
		{"container", []string{"other", "web"}, container, true},
		{"container", []string{"front"}, network, false}, // another kind of that name
		{"volume", []string{"data"}, volume, true},
		{"volume", []string{"data"}, container, false},
		{"network", []string{"front"}, network, true},
		{"network", []string{"def"}, network, true},
		{"network", []string{"back"}, network, false},
		{"label", []string{"app"}, container, true},
		{"label", []string{"app=shop"}, container, true},
		{"label", []string{"app=shop", "image=alpine"}, container, true},
		{"label", []string{"app=shop", "nosuch"}, container, false},
		{"label", []string{"app=bank"}, container, false},
		{"label", []string{"app"}, volume, false},
		{"image", []string{"alpine"}, container, true},
		{"image", []string{"busybox"}, container, false},
		{"image", []string{"alpine"}, image, true},
		{"image", []string{"alpine:latest"}, image, true},
		{"image", []string{"busybox"}, image, false},
		{"image", []string{"data"}, volume, false},
		{"scope", []string{"local"}, container, true},
		{"scope", []string{"swarm"}, container, false},
	} {
		if got := Match(filter.Args{c.field: c.values}, c.m); got != c.want {
			t.Errorf("%s=%q on %s %s: %v, want %v", c.field, c.values, c.m.Type, c.m.Action, got, c.want)
		}
	}
	for _, m := range []events.Message{container, exec, image, volume, network, {}} {
		if !Match(nil, m) {
			t.Errorf("%s %s does not match without a filter", m.Type, m.Action)
		}
	}
	if Match(filter.Args{"type": {"container"}, "event": {"stop"}}, container) {
		t.Error("one field of two is enough")
	}
}

func TestTimesAreReadAsDockerWritesThem(t *testing.T) {
	for text, want := range map[string]time.Time{
		"": {}, "0": time.Unix(0, 0), "1700000000": time.Unix(1700000000, 0), "-5": time.Unix(-5, 0),
		"1.5": time.Unix(1, 500_000_000), "1.000000001": time.Unix(1, 1), "1.0000000019": time.Unix(1, 1), "1.": time.Unix(1, 0), "1.05": time.Unix(1, 50_000_000),
		"2026-01-02T03:04:05Z": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "2026-01-02T03:04:05.000000006+01:00": time.Date(2026, 1, 2, 2, 4, 5, 6, time.UTC),
	} {
		got, err := ParseTime(text)
		if err != nil || !got.Equal(want) || text == "" && !got.IsZero() {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"now", "10m", ".", ".5", "1.x", "1.5.5", "1,5", " 1", "2026-01-02T03:04:05", "99999999999999999999", "1e3", "0x10"} {
		if got, err := ParseTime(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestAFractionHasNoSign(t *testing.T) {
	for _, text := range []string{"2.-5", "2.+5"} {
		if got, err := ParseTime(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestUntilIsATimeOrHowLongAgo(t *testing.T) {
	for name, f := range map[string]filter.Args{"nil": nil, "none": {"until": {}}, "another": {"label": {"a"}}} {
		if got, err := Until(f); err != nil || !got.IsZero() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for text, want := range map[string]time.Time{"1700000000": time.Unix(1700000000, 0), "1.5": time.Unix(1, 500_000_000), "2026-01-02T03:04:05Z": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} {
		if got, err := Until(filter.Args{"until": {text}}); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for text, ago := range map[string]time.Duration{"24h": 24 * time.Hour, "1h30m": 90 * time.Minute, "10ms": 10 * time.Millisecond, "-1h": -time.Hour, "0": 0} {
		before := time.Now()
		got, err := Until(filter.Args{"until": {text}})
		if err != nil || got.Before(before.Add(-ago)) || got.After(time.Now().Add(-ago)) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"yesterday", "1x", "{}"} {
		if got, err := Until(filter.Args{"until": {text}}); !errdefs.IsInvalidArgument(err) || err.Error() != "invalid filter 'until="+text+"'" {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
}

// A script whose variable is unset must not prune everything.
func TestAnEmptyUntilIsRefused(t *testing.T) {
	if got, err := Until(filter.Args{"until": {""}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("it is %v, %v", got, err)
	}
}
