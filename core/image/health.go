package image

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// healthcheck reads the Dockerfile instruction HEALTHCHECK: NONE, or options and
// CMD with a command in exec or shell form.
func healthcheck(c *dockerspec.DockerOCIImageConfig, rest string) error {
	var check dockerspec.HealthcheckConfig
	durations := map[string]*time.Duration{"interval": &check.Interval, "timeout": &check.Timeout, "start-period": &check.StartPeriod, "start-interval": &check.StartInterval}
	for strings.HasPrefix(rest, "--") {
		option, after, _ := strings.Cut(rest, " ")
		rest = strings.TrimSpace(after)
		key, value, _ := strings.Cut(strings.TrimPrefix(option, "--"), "=")
		if key == "retries" {
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 {
				return fmt.Errorf("--retries must be at least 0, not %q", value)
			}
			check.Retries = n
			continue
		}
		into, ok := durations[key]
		if !ok {
			return fmt.Errorf("unknown flag: --%s", key)
		}
		d, err := time.ParseDuration(value)
		if err != nil {
			return err
		}
		if d != 0 && d < time.Millisecond {
			return fmt.Errorf("interval %q cannot be less than 1ms", key)
		}
		*into = d
	}
	kind, command, _ := strings.Cut(rest, " ")
	command = strings.TrimSpace(command)
	switch strings.ToUpper(kind) {
	case "NONE":
		if command != "" {
			return fmt.Errorf("HEALTHCHECK NONE takes no arguments")
		}
		check.Test = []string{"NONE"}
	case "CMD":
		var list []string
		switch {
		case command == "":
			return fmt.Errorf("missing command after HEALTHCHECK CMD")
		case strings.HasPrefix(command, "[") && json.Unmarshal([]byte(command), &list) == nil:
			check.Test = append([]string{"CMD"}, list...)
		default:
			check.Test = []string{"CMD-SHELL", command}
		}
	default:
		return fmt.Errorf("unknown type %q in HEALTHCHECK (try CMD)", kind)
	}
	c.Healthcheck = &check
	return nil
}
