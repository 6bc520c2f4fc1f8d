package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// TestCompatibilityIsDocumented holds docs/compatibility.md to the flags that
// there are and to the fields of the API that there are.
func TestCompatibilityIsDocumented(t *testing.T) {
	body, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	own, others, found := strings.Cut(string(body), "## Flags that davit run does not have")
	if !found {
		t.Fatal("the part about missing flags is missing")
	}
	set := pflag.NewFlagSet("run", pflag.ContinueOnError)
	(&createFlags{}).add(set)
	// These are run's alone.
	for _, name := range []string{"detach", "detach-keys", "sig-proxy"} {
		if set.Lookup(name) == nil {
			set.Bool(name, false, "")
		}
	}
	documented := names(own, "--")
	set.VisitAll(func(f *pflag.Flag) {
		if !documented[f.Name] {
			t.Errorf("--%s is not in the table", f.Name)
		}
	})
	for name := range documented {
		if set.Lookup(name) == nil {
			t.Errorf("--%s is in the table and no flag", name)
		}
	}
	for name := range names(others, "--") {
		if set.Lookup(name) != nil {
			t.Errorf("--%s is a flag and said to be none", name)
		}
	}
	fields := names(string(body), "")
	for _, name := range jsonNames(reflect.TypeFor[container.HostConfig]()) {
		if !fields[name] {
			t.Errorf("HostConfig.%s is not in a table", name)
		}
	}
}

// names are the first words in backquotes of a table's first two cells that
// begin with a prefix.
func names(text, prefix string) map[string]bool {
	list := map[string]bool{}
	word := regexp.MustCompile("^`" + prefix + "([A-Za-z][A-Za-z0-9-]*)`$")
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		for _, cell := range cells[min(1, len(cells)):min(3, len(cells))] {
			if match := word.FindStringSubmatch(strings.TrimSpace(cell)); match != nil {
				list[match[1]] = true
			}
		}
	}
	return list
}

// jsonNames are a structure's fields as JSON has them, embedded ones included.
func jsonNames(t reflect.Type) []string {
	var list []string
	for field := range t.Fields() {
		if field.Anonymous {
			list = append(list, jsonNames(field.Type)...)
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			name = field.Name
		}
		list = append(list, name)
	}
	return list
}
