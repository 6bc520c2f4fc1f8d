package systemd

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// annotation is the prefix of a spec's annotations that are properties of the scope;
// their values are in GVariant's text form.
const annotation = "org.systemd.property."

// annotated are the properties that annotations name, as runc reads them: times may
// be given in seconds, under a name that ends in Sec instead of USec.
func annotated(annotations map[string]string) ([]dbus.Property, error) {
	var list []dbus.Property
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, annotation)
		if !ok {
			continue
		}
		if err := checkName(name); err != nil {
			return nil, invalid("annotation %s name incorrect: %s", key, err)
		}
		value, err := godbus.ParseVariant(annotations[key], godbus.Signature{})
		if err != nil {
			return nil, invalid("annotation %s=%s value parse error: %s", key, annotations[key], err)
		}
		if stem, ok := strings.CutSuffix(name, "Sec"); ok && stem[len(stem)-1] >= 'a' && stem[len(stem)-1] <= 'z' {
			name = stem + "USec"
			if value, err = microseconds(value); err != nil {
				return nil, invalid("annotation %s=%s value parse error: %s", key, annotations[key], err)
			}
		}
		list = append(list, dbus.Property{Name: name, Value: value})
	}
	return list, nil
}

// checkName refuses what cannot be a property's name.
func checkName(name string) error {
	if len(name) < 3 {
		return fmt.Errorf("%q is shorter than 3 letters", name)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return fmt.Errorf("%q has characters other than a-z and A-Z", name)
		}
	}
	if strings.TrimSuffix(name, "Sec") == "" {
		return fmt.Errorf("%q is a unit, not a name", name)
	}
	return nil
}

// microseconds converts seconds.
func microseconds(value godbus.Variant) (godbus.Variant, error) {
	var seconds float64
	switch v := value.Value().(type) {
	case byte:
		seconds = float64(v)
	case int16:
		seconds = float64(v)
	case uint16:
		seconds = float64(v)
	case int32:
		seconds = float64(v)
	case uint32:
		seconds = float64(v)
	case int64:
		seconds = float64(v)
	case uint64:
		seconds = float64(v)
	case float64:
		seconds = v
	default:
		return value, fmt.Errorf("%s is not a number", value)
	}
	if math.IsNaN(seconds) || seconds < 0 || seconds*second >= math.MaxUint64 {
		return value, fmt.Errorf("%s is no number of seconds", value)
	}
	return godbus.MakeVariant(uint64(seconds * second)), nil
}

// override is list without the properties that further has, and then those.
func override(list, further []dbus.Property) []dbus.Property {
	kept := slices.DeleteFunc(list, func(p dbus.Property) bool {
		return slices.ContainsFunc(further, func(f dbus.Property) bool { return f.Name == p.Name })
	})
	return append(kept, further...)
}
