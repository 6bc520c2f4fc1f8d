package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// explain says where in the file an error is and, for an unknown key, which one
// was probably meant.
func explain(name string, err error) error {
	if missing := (*toml.StrictMissingError)(nil); errors.As(err, &missing) {
		problems := make([]string, 0, len(missing.Errors))
		for i := range missing.Errors {
			e := &missing.Errors[i]
			row, col := e.Position()
			problems = append(problems, fmt.Sprintf("%s:%d:%d: %s", name, row, col, unknownKey(e.Key())))
		}
		return invalid("%s", strings.Join(problems, "\n"))
	}
	if e := (*toml.DecodeError)(nil); errors.As(err, &e) {
		row, col := e.Position()
		what := strings.TrimPrefix(e.Error(), "toml: ")
		if key := strings.Join(e.Key(), "."); key != "" {
			what = fmt.Sprintf("key %q: %s", key, what)
		}
		return invalid("%s:%d:%d: %s", name, row, col, what)
	}
	return invalid("%s: %s", name, err)
}

func unknownKey(key toml.Key) string {
	full := strings.Join(key, ".")
	known := keys(reflect.TypeFor[Config](), "")
	best, distance := "", len(full)/3+2
	for _, k := range known {
		if d := edits(full, k); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		// The right name in the wrong table.
		for _, k := range known {
			if len(key) > 0 && k[strings.LastIndex(k, ".")+1:] == key[len(key)-1] {
				best = k
			}
		}
	}
	if best != "" {
		return fmt.Sprintf("unknown key %q; did you mean %q?", full, best)
	}
	parent := full[:strings.LastIndex(full, ".")+1]
	var siblings []string
	for _, k := range known {
		if rest, ok := strings.CutPrefix(k, parent); ok && !strings.Contains(rest, ".") {
			siblings = append(siblings, rest)
		}
	}
	return fmt.Sprintf("unknown key %q; known keys: %s", full, strings.Join(siblings, ", "))
}

// keys lists the keys of the configuration, tables included.
func keys(t reflect.Type, prefix string) []string {
	var out []string
	for field := range t.Fields() {
		name := prefix + field.Tag.Get("toml")
		out = append(out, name)
		table := field.Type
		if table.Kind() == reflect.Slice {
			table = table.Elem() // each of its entries is one
		}
		if table.Kind() == reflect.Struct {
			out = append(out, keys(table, name+".")...)
		}
	}
	return out
}

// edits is the Levenshtein distance of two strings.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := slices.Clone(row)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(previous[j+1]+1, row[j]+1, previous[j]+cost)
		}
	}
	return row[len(b)]
}
