package monitor

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzReadMessage gives a client or a monitor whatever may come: it answers a
// request or an error, takes no byte of what follows, and no memory for bytes
// that do not come.
func FuzzReadMessage(f *testing.F) {
	for _, body := range []string{`{"op":"status"}`, `{"op":"exec","streams":{"log":{"path":"x"}},"process":{"a":[1]}}`, `{"exit":{"code":1}}`, `{`, ``, `null`} {
		f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0x70, 0, 0, '{'})
	f.Fuzz(func(t *testing.T, message []byte) {
		const rest = "what follows"
		for _, into := range []any{&Request{}, &Response{}} {
			r := bytes.NewReader(append(message[:len(message):len(message)], rest...))
			err := ReadMessage(r, into)
			if size := 4; err == nil {
				size += int(binary.BigEndian.Uint32(message))
				if r.Len() != len(message)+len(rest)-size {
					t.Errorf("a message of %d bytes took others with it", size)
				}
			}
			if err != nil {
				continue
			}
			// What was understood is understood again.
			var b bytes.Buffer
			if err := WriteMessage(&b, into); err != nil {
				t.Fatal(err)
			}
			again := reflect.New(reflect.TypeOf(into).Elem()).Interface()
			if err := ReadMessage(&b, again); err != nil {
				t.Fatal(err)
			}
			first, _ := json.Marshal(into)
			if second, _ := json.Marshal(again); !bytes.Equal(first, second) {
				t.Errorf("%s became %s", first, second)
			}
		}
	})
}
