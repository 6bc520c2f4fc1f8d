package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

const (
	defaultStart   = 30 * time.Second
	defaultCall    = 2 * time.Minute
	defaultSilence = 30 * time.Second
)

// Duration is a time span written like "1m30s".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as \"1m30s\"", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes it like "1m30s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

// Size is a number of bytes written like "100m", in powers of 1024.
type Size int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := units.RAMInBytes(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a size such as \"100m\"", text)
	}
	*s = Size(v)
	return nil
}

// Share is a number of bytes written like "10g", or a part of a file system written
// like "5%".
type Share struct {
	Bytes   int64
	Percent float64
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Share) UnmarshalText(text []byte) error {
	if part, ok := strings.CutSuffix(string(text), "%"); ok {
		v, err := strconv.ParseFloat(part, 64)
		if err != nil || math.IsNaN(v) || v < 0 || v >= 100 {
			return fmt.Errorf("%q is not a part such as \"5%%\", which is less than 100%%", text)
		}
		*s = Share{Percent: v}
		return nil
	}
	v, err := units.RAMInBytes(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is neither a size such as \"10g\" nor a part such as \"5%%\"", text)
	}
	*s = Share{Bytes: v}
	return nil
}
