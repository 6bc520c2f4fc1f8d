package command

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/davit-engine/davit/plugins/runtime-native/cgroup"
	"github.com/davit-engine/davit/plugins/runtime-native/davit-oci/container"
)

// TestPressureIsInRuncsWords: its times are microseconds.
func TestPressureIsInRuncsWords(t *testing.T) {
	u := container.Usage{Pressures: map[string]cgroup.Pressure{"cpu": {Some: cgroup.Stall{Avg10: 1.5, Avg60: 2, Avg300: 3, Total: 7 * time.Millisecond}}}}
	body, err := json.Marshal(convertUsage(u))
	if err != nil {
		t.Fatal(err)
	}
	want := `"psi":{"some":{"avg10":1.5,"avg60":2,"avg300":3,"total":7000},"full":{"avg10":0,"avg60":0,"avg300":0,"total":0}}`
	if got := string(body); !strings.Contains(got, want) || strings.Count(got, `"psi"`) != 1 {
		t.Errorf("%s\nwant once %s", got, want)
	}
}
