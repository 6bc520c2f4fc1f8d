package spec

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestDeviceRulesAreRead(t *testing.T) {
	for rule, want := range map[string]specs.LinuxDeviceCgroup{
		"c 1:3 mr":    {Type: "c", Major: new(int64(1)), Minor: new(int64(3)), Access: "mr"},
		"a *:* rwm":   {Type: "a", Access: "rwm"},
		"b 7:* rmw":   {Type: "b", Major: new(int64(7)), Access: "rmw"},
		"c *:0 w":     {Type: "c", Minor: new(int64(0)), Access: "w"},
		"c 007:010 r": {Type: "c", Major: new(int64(7)), Minor: new(int64(10)), Access: "r"},
	} {
		want.Allow = true
		rules := limits(t, container.Resources{DeviceCgroupRules: []string{rule}}).Devices
		if diff := cmp.Diff(append(defaultDeviceRules(), want), rules); diff != "" {
			t.Errorf("%s (-want +got):\n%s", rule, diff)
		}
	}
}

func TestBadDeviceRulesAreRefused(t *testing.T) {
	for _, rule := range []string{
		"", "c", "c 1:3", "c 1:3 ", "c 1:3 x", "c 1:3 rwmr", "d 1:3 r", "c 1 r", "c 1:3:5 r", "c -1:3 r", "c 1:3  r", " c 1:3 r", "c 1:3 r\n",
		"c **:3 r", "c 1*:3 r", "c 0x1:3 r", "c 99999999999999999999:0 r", "c 0:99999999999999999999 r",
	} {
		_, err := parseDeviceRule(rule)
		refused(t, err, fmt.Sprintf("invalid device cgroup rule format: '%s'", rule))
	}
}

// What is accepted says in the runtime's words what the text said in Docker's.
func FuzzDeviceRule(f *testing.F) {
	for _, seed := range []string{"c 1:3 mr", "a *:* rwm", "b 7:* rmw", "", "c 99999999999999999999:0 r", "c 1:3 r\n", "c \u0661:3 r"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rule, err := parseDeviceRule(text)
		if err != nil {
			refused(t, err, fmt.Sprintf("invalid device cgroup rule format: '%s'", text))
			return
		}
		number := func(n *int64) string {
			if n == nil {
				return "*"
			}
			if *n < 0 {
				t.Errorf("%q has the number %d", text, *n)
			}
			return strconv.FormatInt(*n, 10)
		}
		again, err := parseDeviceRule(fmt.Sprintf("%s %s:%s %s", rule.Type, number(rule.Major), number(rule.Minor), rule.Access))
		if err != nil || !rule.Allow || !cmp.Equal(rule, again) {
			t.Errorf("%q is read as %+v, which is read as %+v, %v", text, rule, again, err)
		}
	})
}
