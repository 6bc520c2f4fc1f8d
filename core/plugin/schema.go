package plugin

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
)

// Key describes one setting of a plugin.
type Key struct {
	Type        Type   `json:"type"`
	Default     any    `json:"default"` // absent: no value unless the user gives one
	Description string `json:"description"`
	Required    bool   `json:"required"`
}

// Type is the type of a setting.
type Type string

// The types of settings. A duration is written like "1m30s", a size like "100m"
// or as a number of bytes.
const (
	TypeString   Type = "string"
	TypeInt      Type = "int"
	TypeBool     Type = "bool"
	TypeList     Type = "list"
	TypeDuration Type = "duration"
	TypeSize     Type = "size"
)

func (t Type) valid() bool {
	return slices.Contains([]Type{TypeString, TypeInt, TypeBool, TypeList, TypeDuration, TypeSize}, t)
}

// value checks v and answers it in the form in which plugins get it.
func (t Type) value(v any) (any, error) {
	wrong := fmt.Errorf("%v (%T) is not a %s", v, v, t)
	switch t {
	case TypeString:
		if s, ok := v.(string); ok {
			return s, nil
		}
	case TypeBool:
		if b, ok := v.(bool); ok {
			return b, nil
		}
	case TypeInt:
		if n, ok := integer(v); ok {
			return n, nil
		}
	case TypeSize:
		if n, ok := integer(v); ok && n >= 0 {
			return n, nil
		}
		if s, ok := v.(string); ok {
			n, err := units.RAMInBytes(s)
			if err != nil {
				return nil, fmt.Errorf("%q is not a size such as \"100m\"", s)
			}
			return n, nil
		}
	case TypeDuration:
		if s, ok := v.(string); ok {
			d, err := time.ParseDuration(s)
			if err != nil {
				return nil, fmt.Errorf("%q is not a duration such as \"1m30s\"", s)
			}
			return d.String(), nil
		}
	case TypeList:
		return list(v, wrong)
	}
	return nil, wrong
}

// integer accepts what TOML (int64) and JSON (float64) call an integer.
func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case float64:
		if n == math.Trunc(n) && math.Abs(n) <= 1<<53 {
			return int64(n), true
		}
	}
	return 0, false
}

// list answers []any, the form that a protobuf Struct takes.
func list(v any, wrong error) (any, error) {
	switch elements := v.(type) {
	case []string:
		out := make([]any, len(elements))
		for i, e := range elements {
			out[i] = e
		}
		return out, nil
	case []any:
		for _, e := range elements {
			if _, ok := e.(string); !ok {
				return nil, fmt.Errorf("%v (%T) in the list is not a string", e, e)
			}
		}
		return elements, nil
	}
	return nil, wrong
}

// Settings checks a user's settings against the schema and fills in defaults.
func (m *Manifest) Settings(user map[string]any) (map[string]any, error) {
	out := make(map[string]any, len(m.Config))
	for _, name := range slices.Sorted(maps.Keys(user)) {
		key, ok := m.Config[name]
		if !ok {
			return nil, fmt.Errorf("plugins.config.%s: unknown key %q; known keys: %s: %w",
				m.Name, name, known(m.Config), errdefs.ErrInvalidArgument)
		}
		v, err := key.Type.value(user[name])
		if err != nil {
			return nil, fmt.Errorf("plugins.config.%s: key %q: %w: %w", m.Name, name, err, errdefs.ErrInvalidArgument)
		}
		out[name] = v
	}
	for _, name := range slices.Sorted(maps.Keys(m.Config)) {
		key := m.Config[name]
		if _, given := out[name]; given {
			continue
		}
		if key.Required {
			return nil, fmt.Errorf("plugins.config.%s: key %q is required (%s): %w",
				m.Name, name, key.Description, errdefs.ErrInvalidArgument)
		}
		if key.Default == nil {
			continue
		}
		v, err := key.Type.value(key.Default)
		if err != nil {
			return nil, fmt.Errorf("manifest of %s: default of key %q: %w: %w", m.Name, name, err, errdefs.ErrInvalidArgument)
		}
		out[name] = v
	}
	return out, nil
}
