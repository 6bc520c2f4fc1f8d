package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
)

// Encode puts a configuration into bytes for its stage: four bytes with the
// length of what follows as JSON (big endian), and then the seccomp program as it
// lies in memory, which is longer than all the rest.
func (c Config) Encode() ([]byte, error) {
	var program []byte
	if c.Seccomp != nil {
		filter := *c.Seccomp
		program, filter.Program = filter.Program, nil
		c.Seccomp = &filter
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	encoded := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)+len(program)), uint32(len(body)))
	return append(append(encoded, body...), program...), nil
}

func decode(encoded []byte) (Config, error) {
	var c Config
	if len(encoded) < 4 {
		return c, errors.New("the configuration has no length")
	}
	length, rest := uint64(binary.BigEndian.Uint32(encoded)), encoded[4:]
	if length > uint64(len(rest)) {
		return c, errors.New("the configuration is cut off")
	}
	if err := json.Unmarshal(rest[:length], &c); err != nil {
		return c, err
	}
	if program := rest[length:]; len(program) > 0 {
		if c.Seccomp == nil {
			return c, errors.New("there is a seccomp program, but no filter")
		}
		c.Seccomp.Program = program
	}
	return c, nil
}
