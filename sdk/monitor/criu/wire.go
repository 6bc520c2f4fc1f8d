package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The two kinds of fields of Protocol Buffers that rpc.proto has.
const (
	varint = 0
	bytes  = 2
)

// message is an encoded Protocol Buffers message. Fields are only added that
// differ from zero: rpc.proto's defaults are CRIU's own.
type message []byte

func (m *message) number(field int, value uint64) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|varint)
	*m = binary.AppendUvarint(*m, value)
}

func (m *message) flag(field int, value bool) {
	if value {
		m.number(field, 1)
	}
}

func (m *message) text(field int, value string) {
	if value != "" {
		m.nested(field, message(value))
	}
}

func (m *message) nested(field int, value message) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|bytes)
	*m = binary.AppendUvarint(*m, uint64(len(value)))
	*m = append(*m, value...)
}

var errMalformed = errors.New("malformed answer of criu")

// fields calls number and nested for each field of a message.
func (m message) fields(number func(field int, value uint64), nested func(field int, value message) error) error {
	for len(m) > 0 {
		tag, n := binary.Uvarint(m)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return errMalformed
		}
		m = m[n:]
		field := int(tag >> 3)
		switch tag & 7 {
		case varint:
			value, n := binary.Uvarint(m)
			if n <= 0 {
				return errMalformed
			}
			m = m[n:]
			number(field, value)
		case bytes:
			size, n := binary.Uvarint(m)
			if n <= 0 || size > uint64(len(m)-n) {
				return errMalformed
			}
			value := m[n : n+int(size)]
			m = m[n+int(size):]
			if err := nested(field, value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: a field of kind %d", errMalformed, tag&7)
		}
	}
	return nil
}

// numbers reads a message that has none but numbers of interest.
func (m message) numbers() (map[int]uint64, error) {
	found := map[int]uint64{}
	err := m.fields(func(field int, value uint64) { found[field] = value }, func(int, message) error { return nil })
	return found, err
}

// response is criu_resp.
type response struct {
	kind    kind
	success bool
	script  string // of a notification
	pid     int    // restored, or of a notification
	errno   int
	version Version
}

func parseResponse(m message) (response, error) {
	var r response
	err := m.fields(func(field int, value uint64) {
		switch field {
		case 1:
			r.kind = kind(value)
		case 2:
			r.success = value != 0
		case 7:
			r.errno = int(int32(value))
		}
	}, func(field int, value message) error {
		switch field {
		case 4: // criu_restore_resp
			numbers, err := value.numbers()
			r.pid = int(int32(numbers[1]))
			return err
		case 10: // criu_version
			numbers, err := value.numbers()
			r.version = Version{int(numbers[1]), int(numbers[2])}
			return err
		case 5: // criu_notify
			return value.fields(
				func(field int, value uint64) {
					if field == 2 {
						r.pid = int(int32(value))
					}
				},
				func(field int, value message) error {
					if field == 1 {
						r.script = string(value)
					}
					return nil
				})
		}
		return nil
	})
	return r, err
}
