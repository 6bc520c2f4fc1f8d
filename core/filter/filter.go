// Package filter is the Docker API's filter argument: sets of values by field.
package filter

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/containerd/errdefs"
)

// Args are filter values by field. The zero value matches everything.
type Args map[string][]string

// Parse decodes the "filters" query value, in the present form
// ({"label":["a"]}) and in the one before API 1.22 ({"label":{"a":true}}).
func Parse(s string) (Args, error) {
	if s == "" {
		return nil, nil
	}
	var lists map[string][]string
	if err := json.Unmarshal([]byte(s), &lists); err == nil {
		return lists, nil
	}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(s), &sets); err != nil {
		return nil, fmt.Errorf("invalid filter: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	args := make(Args, len(sets))
	for field, set := range sets {
		for value, on := range set {
			if on {
				args[field] = append(args[field], value)
			}
		}
		sort.Strings(args[field])
	}
	return args, nil
}

// Validate fails for a field that is not among accepted.
func (a Args) Validate(accepted ...string) error {
	for field := range a {
		if !slices.Contains(accepted, field) {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid filter '%s'", field))
		}
	}
	return nil
}

// Has says whether a field is filtered on.
func (a Args) Has(field string) bool { return len(a[field]) > 0 }

// Exact says whether value is among the field's values, or the field is unset.
func (a Args) Exact(field, value string) bool {
	return !a.Has(field) || slices.Contains(a[field], value)
}

// Prefix says whether value starts with one of the field's values.
func (a Args) Prefix(field, value string) bool {
	return !a.Has(field) || slices.ContainsFunc(a[field], func(p string) bool { return strings.HasPrefix(value, p) })
}

// Match says whether one of the field's values matches value as a regular
// expression or a substring.
func (a Args) Match(field, value string) bool {
	return !a.Has(field) || slices.ContainsFunc(a[field], func(p string) bool {
		if strings.Contains(value, p) {
			return true
		}
		ok, err := regexp.MatchString(p, value)
		return err == nil && ok
	})
}

// Glob says whether one of the field's values matches value as a path pattern.
func (a Args) Glob(field, value string) bool {
	return !a.Has(field) || slices.ContainsFunc(a[field], func(p string) bool {
		ok, err := path.Match(p, value)
		return err == nil && ok
	})
}

// Labels says whether labels satisfy every "key" or "key=value" of the field.
func (a Args) Labels(field string, labels map[string]string) bool {
	for _, want := range a[field] {
		key, value, exact := strings.Cut(want, "=")
		got, ok := labels[key]
		if !ok || exact && got != value {
			return false
		}
	}
	return true
}

// Bool decodes a boolean field; def is the answer where the field is unset.
func (a Args) Bool(field string, def bool) (bool, error) {
	if !a.Has(field) {
		return def, nil
	}
	var result bool
	for i, v := range a[field] {
		var b bool
		switch v {
		case "1", "true":
			b = true
		case "0", "false":
		default:
			return false, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid filter '%s=[%s]'", field, v))
		}
		if i > 0 && b != result {
			return false, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid filter '%s': contradicting values", field))
		}
		result = b
	}
	return result, nil
}
