package filter

import (
	"encoding/json"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestBothFormsOnTheWireMeanTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Args
	}{
		"nothing":          {"", nil},
		"null":             {"null", nil},
		"none":             {"{}", Args{}},
		"lists":            {`{"label":["b=1","a"],"status":["exited"]}`, Args{"label": {"b=1", "a"}, "status": {"exited"}}},
		"sets":             {`{"label":{"b=1":true,"a":true},"status":{"exited":true}}`, Args{"label": {"a", "b=1"}, "status": {"exited"}}},
		"a set's false":    {`{"label":{"a":true,"b":false},"status":{"exited":false}}`, Args{"label": {"a"}}},
		"an empty list":    {`{"label":[]}`, Args{"label": {}}},
		"an empty set":     {`{"label":{}}`, Args{}},
		"a list of null":   {`{"label":null}`, Args{"label": nil}},
		"blanks":           {" {\"id\" : [ \"x\" ] }\n", Args{"id": {"x"}}},
		"escaped and deep": {`{"name":["^\/we\u0062$"]}`, Args{"name": {"^/web$"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("filters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatIsNoFilterIsRefused(t *testing.T) {
	for _, text := range []string{
		"label", "{", `{"label"}`, `{"label":"a"}`, `{"label":[1]}`, `{"label":{"a":1}}`, `["label"]`, "1", `"x"`, `{"label":["a"]} x`,
		`{"label":["a"],"status":{"exited":true}}`, `{"label":[["a"]]}`,
	} {
		if got, err := Parse(text); !errdefs.IsInvalidArgument(err) || got != nil {
			t.Errorf("%s is read as %v, %v", text, got, err)
		}
	}
}

func TestOnlyAcceptedFieldsAreValid(t *testing.T) {
	if err := (Args{"label": {"a"}, "id": nil}).Validate("id", "label", "name"); err != nil {
		t.Error(err)
	}
	var none Args
	if err := none.Validate(); err != nil {
		t.Error(err)
	}
	// A field that is misspelled must not select everything: prune would delete it.
	err := Args{"lable": {"a"}}.Validate("label")
	if want := "invalid filter 'lable'"; !errdefs.IsInvalidArgument(err) || err.Error()[:len(want)] != want {
		t.Errorf("error %v", err)
	}
}

func TestNoFilterMatchesEverything(t *testing.T) {
	for name, a := range map[string]Args{"nil": nil, "empty": {}, "another field": {"x": {"y"}}, "without values": {"f": {}}} {
		if a.Has("f") || !a.Exact("f", "v") || !a.Prefix("f", "v") || !a.Match("f", "v") || !a.Glob("f", "v") || !a.Labels("f", nil) {
			t.Errorf("%s does not match", name)
		}
		for _, def := range []bool{true, false} {
			if got, err := a.Bool("f", def); got != def || err != nil {
				t.Errorf("%s is %v, %v", name, got, err)
			}
		}
	}
}

func TestHowValuesMatch(t *testing.T) {
	type matches struct{ Exact, Prefix, Match, Glob bool }
	for _, c := range []struct {
		filters []string
		value   string
		want    matches
	}{
		{[]string{"web"}, "web", matches{true, true, true, true}},
		{[]string{"we"}, "web", matches{Prefix: true, Match: true}},
		{[]string{"eb"}, "web", matches{Match: true}},
		{[]string{"WEB"}, "web", matches{}},
		{[]string{"db", "web"}, "web", matches{true, true, true, true}},
		{[]string{"^w.b$"}, "web", matches{Match: true}},
		{[]string{"^e"}, "web", matches{}},
		{[]string{"web-[0-9]+"}, "web-17", matches{Match: true}},
		{[]string{"we*"}, "web", matches{Match: true, Glob: true}}, // as an expression: w, and any number of e
		{[]string{"?eb"}, "web", matches{Glob: true}},              // no expression
		{[]string{"[v-x]eb"}, "web", matches{Match: true, Glob: true}},
		{[]string{"lib/*"}, "lib/alpine", matches{Match: true, Glob: true}},
		{[]string{"*"}, "lib/alpine", matches{}}, // a star is not for slashes, and no expression
		// What is no pattern can still be a text.
		{[]string{"["}, "web", matches{}},
		{[]string{"we["}, "we[b", matches{Prefix: true, Match: true}},
		{[]string{"(", "web"}, "web", matches{true, true, true, true}},
	} {
		a := Args{"f": c.filters}
		got := matches{a.Exact("f", c.value), a.Prefix("f", c.value), a.Match("f", c.value), a.Glob("f", c.value)}
		if got != c.want {
			t.Errorf("%q on %q: %+v, want %+v", c.filters, c.value, got, c.want)
		}
	}
}

func TestLabelsHaveToBeThereAll(t *testing.T) {
	labels := map[string]string{"app": "web", "tier": "", "url": "a=b"}
	for _, c := range []struct {
		wanted []string
		want   bool
	}{
		{[]string{"app"}, true},
		{[]string{"app=web"}, true},
		{[]string{"app=we"}, false},
		{[]string{"app="}, false},
		{[]string{"tier"}, true},
		{[]string{"tier="}, true},
		{[]string{"url=a=b"}, true},
		{[]string{"url=a"}, false},
		{[]string{"app", "tier="}, true},
		{[]string{"app", "nosuch"}, false},
		{[]string{"APP"}, false},
		{[]string{""}, false},
	} {
		if got := (Args{"label": c.wanted}).Labels("label", labels); got != c.want {
			t.Errorf("%q: %v", c.wanted, got)
		}
	}
	if (Args{"label": {"app"}}).Labels("label", nil) {
		t.Error("what has no labels has one")
	}
}

func TestBooleansAreZeroAndOne(t *testing.T) {
	for value, want := range map[string]bool{"1": true, "true": true, "0": false, "false": false} {
		for _, def := range []bool{true, false} {
			if got, err := (Args{"dangling": {value}}).Bool("dangling", def); got != want || err != nil {
				t.Errorf("%s is %v, %v", value, got, err)
			}
		}
	}
	if got, err := (Args{"dangling": {"true", "1"}}).Bool("dangling", false); !got || err != nil {
		t.Errorf("twice the same is %v, %v", got, err)
	}
	for _, values := range [][]string{{"yes"}, {""}, {"TRUE"}, {"1", "x"}, {"true", "false"}, {"0", "1"}} {
		if got, err := (Args{"dangling": values}).Bool("dangling", true); !errdefs.IsInvalidArgument(err) || got {
			t.Errorf("%q is %v, %v", values, got, err)
		}
	}
}

// Filters come from anywhere: reading them fails or gives what can be asked and
// written again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "null", "{}", `{"label":["a=b","c"]}`, `{"label":{"a=b":true,"c":false}}`, `{"name":["^we[0-9]$","("]}`, `{"until":["24h"]}`, `{"":[""]}`,
		`{"a":null}`, `{"a":["b"],"a":["c"]}`, `{"a":["b"],"c":{"d":true}}`, "{\"a\":[\"\xff\"]}", `{"dangling":["true","0"]}`, "[]", "{",
	} {
		f.Add(seed, "label", "a=b")
	}
	f.Fuzz(func(t *testing.T, text, field, value string) {
		a, err := Parse(text)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q is refused with %v", text, err)
			}
			return
		}
		if exact := a.Exact(field, value); exact && !a.Prefix(field, value) || exact && !a.Match(field, value) {
			t.Errorf("%q on %q is the value, but does not begin with it or match", a[field], value)
		}
		a.Glob(field, value)
		a.Labels(field, map[string]string{field: value})
		_, _ = a.Bool(field, true)
		body, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(string(body))
		if err != nil {
			t.Fatalf("%q is written as %q: %v", text, body, err)
		}
		if diff := cmp.Diff(a, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q (-read +again):\n%s", text, diff)
		}
	})
}
