// Package logs reads containers' logs in Docker's json-file format, as the
// monitor writes them: across rotated files, from the end, and while they grow.
package logs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// entry is one line of a log file.
type entry struct {
	text   []byte // with its newline, if the line had one
	stream string
	attrs  []byte // a JSON object of strings; nil if there are none
	time   []byte // RFC 3339
}

var (
	logKey    = []byte(`{"log":"`)
	streamKey = []byte(`,"stream":"`)
	attrsKey  = []byte(`,"attrs":`)
	timeKey   = []byte(`,"time":"`)
)

// parse reads a line of a log file. The monitor's own form is read directly;
// anything else with the same fields (another writer's, other order) by
// encoding/json. Text may alias line or buffer.
func parse(line, buffer []byte) (e entry, grown []byte, err error) {
	if e, grown, ok := parseOwn(line, buffer); ok {
		return e, grown, nil
	}
	var any struct {
		Log    string          `json:"log"`
		Stream string          `json:"stream"`
		Attrs  json.RawMessage `json:"attrs"`
		Time   string          `json:"time"`
	}
	if err := json.Unmarshal(line, &any); err != nil {
		return entry{}, buffer, fmt.Errorf("log entry: %w", err)
	}
	return entry{text: []byte(any.Log), stream: any.Stream, attrs: any.Attrs, time: []byte(any.Time)}, buffer, nil
}

func parseOwn(line, buffer []byte) (e entry, grown []byte, ok bool) {
	rest, found := bytes.CutPrefix(line, logKey)
	if !found {
		return e, buffer, false
	}
	end := closingQuote(rest)
	if end < 0 {
		return e, buffer, false
	}
	raw := rest[:end]
	rest, found = bytes.CutPrefix(rest[end+1:], streamKey)
	if !found {
		return e, buffer, false
	}
	i := bytes.IndexByte(rest, '"')
	if i < 0 {
		return e, buffer, false
	}
	switch string(rest[:i]) {
	case "stdout":
		e.stream = "stdout"
	case "stderr":
		e.stream = "stderr"
	default:
		return e, buffer, false
	}
	rest = rest[i+1:]
	if after, found := bytes.CutPrefix(rest, attrsKey); found {
		end := endOfStrings(after)
		if end < 0 {
			return e, buffer, false
		}
		e.attrs, rest = after[:end], after[end:]
	}
	rest, found = bytes.CutPrefix(rest, timeKey)
	if !found {
		return e, buffer, false
	}
	if i = bytes.IndexByte(rest, '"'); i < 0 || !bytes.HasPrefix(rest[i:], []byte(`"}`)) {
		return e, buffer, false
	}
	e.time = rest[:i]
	if bytes.IndexByte(raw, '\\') < 0 {
		if !utf8.Valid(raw) {
			return e, buffer, false
		}
		e.text = raw
		return e, buffer, true
	}
	buffer, ok = unescape(buffer[:0], raw)
	e.text = buffer
	return e, buffer, ok
}

// endOfStrings is the length of a JSON object of strings at p's beginning, or -1.
func endOfStrings(p []byte) int {
	for at := 0; at < len(p); at++ {
		switch p[at] {
		case '"':
			end := closingQuote(p[at+1:])
			if end < 0 {
				return -1
			}
			at += 1 + end
		case '}':
			return at + 1
		}
	}
	return -1
}

// closingQuote is the index of the quote that ends a JSON string.
func closingQuote(p []byte) int {
	for from := 0; ; {
		i := bytes.IndexByte(p[from:], '"')
		if i < 0 {
			return -1
		}
		i += from
		slashes := 0
		for j := i - 1; j >= 0 && p[j] == '\\'; j-- {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
		from = i + 1
	}
}

var simpleEscapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'f': '\f'}

// unescape undoes JSON's escapes; surrogate pairs are left to encoding/json.
func unescape(dst, p []byte) ([]byte, bool) {
	for {
		i := bytes.IndexByte(p, '\\')
		if i < 0 {
			if !utf8.Valid(p) {
				return dst, false
			}
			return append(dst, p...), true
		}
		if i+1 >= len(p) || !utf8.Valid(p[:i]) {
			return dst, false
		}
		dst = append(dst, p[:i]...)
		c := p[i+1]
		if plain, ok := simpleEscapes[c]; ok {
			dst = append(dst, plain)
			p = p[i+2:]
			continue
		}
		if c != 'u' || len(p) < i+6 {
			return dst, false
		}
		var r rune
		for _, digit := range p[i+2 : i+6] {
			v := hexValue(digit)
			if v < 0 {
				return dst, false
			}
			r = r<<4 | v
		}
		if r >= 0xd800 && r < 0xe000 {
			return dst, false
		}
		dst = utf8.AppendRune(dst, r)
		p = p[i+6:]
	}
}

func hexValue(c byte) rune {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0')
	case c >= 'a' && c <= 'f':
		return rune(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// at is the entry's time.
func (e entry) at() time.Time {
	t, err := time.Parse(time.RFC3339Nano, string(e.time))
	if err != nil {
		return time.Time{}
	}
	return t
}
