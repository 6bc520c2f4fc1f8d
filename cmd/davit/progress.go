package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client/pkg/jsonmessage"
	"github.com/moby/term"
)

// The ways in which progress is shown.
const (
	progressAuto  = "auto"  // as tty on a terminal, otherwise plain
	progressTTY   = "tty"   // bars in place
	progressPlain = "plain" // a line for each step
	progressJSON  = "json"  // the engine's messages, one a line
)

// showPull shows a pull's progress in one of these ways.
func showPull(body io.Reader, out io.Writer, how string) error {
	fd, terminal := term.GetFdInfo(out)
	switch how {
	case progressJSON:
		return copyMessages(body, out)
	case progressTTY:
		terminal = true
	case progressPlain:
		terminal = false
	case progressAuto:
	default:
		return &status{1, fmt.Sprintf("invalid progress %q: is none of auto, json, plain, tty", how)}
	}
	list := messages(body)
	if terminal {
		list = newDownloads(time.Now).withTotals(list)
	}
	return jsonmessage.DisplayJSONMessages(list, out, fd, terminal, nil)
}

// messages reads a stream of them.
func messages(body io.Reader) iter.Seq2[jsonstream.Message, error] {
	decoder := json.NewDecoder(body)
	return func(yield func(jsonstream.Message, error) bool) {
		for {
			var m jsonstream.Message
			err := decoder.Decode(&m)
			if errors.Is(err, io.EOF) || !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// copyMessages writes each message on a line of its own. One that tells of an error
// is the error, too.
func copyMessages(body io.Reader, out io.Writer) error {
	decoder := json.NewDecoder(body)
	for {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", raw); err != nil {
			return err
		}
		var m jsonstream.Message
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		if m.Error != nil {
			return m.Error
		}
	}
}

// window is the time over which a rate is taken.
const window = 5 * time.Second

// downloads adds up the layers of a pull.
type downloads struct {
	now    func() time.Time
	layers map[string]*layerProgress
	order  []string
	points []point // of the last window
}

type layerProgress struct {
	current, total int64
	counted        bool // its size is known
	done           bool // it is here
}

type point struct {
	at    time.Time
	bytes int64
}

func newDownloads(now func() time.Time) *downloads {
	return &downloads{now: now, layers: map[string]*layerProgress{}}
}

// totalID is the line with the sum of all layers.
const totalID = "Total"

// withTotals adds after each step of a download what there is of all of them: layers,
// bytes and their rate. The sum of bytes that will come is only shown when the sizes
// of all layers are known.
func (d *downloads) withTotals(list iter.Seq2[jsonstream.Message, error]) iter.Seq2[jsonstream.Message, error] {
	return func(yield func(jsonstream.Message, error) bool) {
		for m, err := range list {
			if !yield(m, err) {
				return
			}
			if err == nil && d.note(m) && !yield(d.total(), nil) {
				return
			}
		}
	}
}

// note says whether a message changes the sum.
func (d *downloads) note(m jsonstream.Message) bool {
	layer := d.layers[m.ID]
	switch m.Status {
	case "Pulling fs layer":
		if layer == nil {
			d.layers[m.ID] = &layerProgress{}
			d.order = append(d.order, m.ID)
		}
		return false
	case "Downloading":
		if layer == nil || m.Progress == nil {
			return false
		}
		if !layer.counted {
			// What was here before this pull is not of its rate.
			d.points = nil
		}
		layer.current, layer.total, layer.counted = m.Progress.Current, m.Progress.Total, true
		return true
	case "Verifying Checksum", "Download complete", "Already exists":
		if layer == nil || layer.done {
			return false
		}
		layer.done, layer.current = true, layer.total
		layer.counted = layer.counted || m.Status == "Already exists"
		return len(d.points) > 0 || layer.total > 0
	}
	return false
}

func (d *downloads) total() jsonstream.Message {
	var sum, of int64
	done, known := 0, true
	for _, id := range d.order {
		layer := d.layers[id]
		sum, of = sum+layer.current, of+layer.total
		known = known && (layer.counted || layer.done)
		if layer.done {
			done++
		}
	}
	now := d.now()
	d.points = append(d.points, point{now, sum})
	for len(d.points) > 2 && now.Sub(d.points[0].at) > window {
		d.points = d.points[1:]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d/%d layers", done, len(d.order))
	first := d.points[0]
	if elapsed := now.Sub(first.at); elapsed >= time.Second && sum > first.bytes {
		fmt.Fprintf(&b, ", %s/s", units.HumanSize(float64(sum-first.bytes)/elapsed.Seconds()))
	}
	if !known {
		of = 0
	}
	return jsonstream.Message{ID: totalID, Status: b.String(), Progress: &jsonstream.Progress{Current: sum, Total: of}}
}
