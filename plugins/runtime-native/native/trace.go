package native

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/davit-engine/davit/sdk/monitor"
)

// trace begins to record what a creation's time goes into, if the log is to have
// that.
func (d *Driver) trace(begin string) *monitor.Trace {
	if !d.log.IsTrace() {
		return nil
	}
	t := &monitor.Trace{}
	t.Done(begin)
	return t
}

// report writes a trace to the log: what each step took, and when it was over.
func (d *Driver) report(id string, t *monitor.Trace) {
	if t == nil {
		return
	}
	// Monitor and stage work at the same time.
	slices.SortStableFunc(t.Marks, func(a, b monitor.Mark) int { return cmp.Compare(a.At, b.At) })
	begin := t.Marks[0].At
	before := begin
	for _, mark := range t.Marks {
		d.log.Trace(mark.Done, "container", id, "took", milliseconds(mark.At-before), "at", milliseconds(mark.At-begin))
		before = mark.At
	}
}

func milliseconds(us int64) string { return fmt.Sprintf("%.3fms", float64(us)/1000) }
