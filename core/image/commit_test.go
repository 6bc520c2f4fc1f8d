package image

import (
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

func config(change func(*dockerspec.DockerOCIImageConfig)) (c dockerspec.DockerOCIImageConfig) {
	change(&c)
	return c
}

func TestTheContainerFillsWhatTheUserLeavesOpen(t *testing.T) {
	of := func() dockerspec.DockerOCIImageConfig {
		return config(func(c *dockerspec.DockerOCIImageConfig) {
			c.User, c.WorkingDir, c.StopSignal = "nobody", "/srv", "SIGINT"
			c.Env, c.Labels = []string{"PATH=/bin", "A=1"}, map[string]string{"a": "1", "b": "2"}
			c.Entrypoint, c.Cmd, c.Shell = []string{"/entry"}, []string{"run"}, []string{"/bin/ash", "-c"}
			c.ExposedPorts, c.Volumes = map[string]struct{}{"80/tcp": {}}, map[string]struct{}{"/data": {}}
			c.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "true"}}
		})
	}
	for name, c := range map[string]struct {
		changes []string
		want    func(*dockerspec.DockerOCIImageConfig)
	}{
		"nothing is set":          {nil, func(*dockerspec.DockerOCIImageConfig) {}},
		"a command":               {[]string{`CMD ["other"]`}, func(c *dockerspec.DockerOCIImageConfig) { c.Cmd = []string{"other"} }},
		"an entrypoint clears it": {[]string{`ENTRYPOINT ["/new"]`}, func(c *dockerspec.DockerOCIImageConfig) { c.Entrypoint, c.Cmd = []string{"/new"}, nil }},
		"both":                    {[]string{`ENTRYPOINT ["/new"]`, `CMD ["x"]`}, func(c *dockerspec.DockerOCIImageConfig) { c.Entrypoint, c.Cmd = []string{"/new"}, []string{"x"} }},
		"variables":               {[]string{`ENV A=2 B="3 4"`}, func(c *dockerspec.DockerOCIImageConfig) { c.Env = []string{"A=2", "B=3 4", "PATH=/bin"} }},
		"labels":                  {[]string{"LABEL b=3"}, func(c *dockerspec.DockerOCIImageConfig) { c.Labels = map[string]string{"a": "1", "b": "3"} }},
		"ports and volumes are added": {[]string{"EXPOSE 53/udp", "VOLUME /more"}, func(c *dockerspec.DockerOCIImageConfig) {
			c.ExposedPorts["53/udp"], c.Volumes["/more"] = struct{}{}, struct{}{}
		}},
		"words": {[]string{"USER root", "WORKDIR /", "STOPSIGNAL SIGTERM"}, func(c *dockerspec.DockerOCIImageConfig) {
			c.User, c.WorkingDir, c.StopSignal = "root", "/", "SIGTERM"
		}},
		"a check": {[]string{"healthcheck --interval=5s --timeout=1m --start-period=2s --start-interval=1s --retries=4 CMD curl -f localhost"}, func(c *dockerspec.DockerOCIImageConfig) {
			c.Healthcheck = &dockerspec.HealthcheckConfig{
				Test: []string{"CMD-SHELL", "curl -f localhost"}, Interval: 5 * time.Second, Timeout: time.Minute, StartPeriod: 2 * time.Second, StartInterval: time.Second, Retries: 4,
			}
		}},
		"no check": {[]string{"HEALTHCHECK NONE"}, func(c *dockerspec.DockerOCIImageConfig) {
			c.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"NONE"}}
		}},
		"a check in exec form": {[]string{`HEALTHCHECK CMD ["/check", "me"]`}, func(c *dockerspec.DockerOCIImageConfig) {
			c.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "/check", "me"}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var set dockerspec.DockerOCIImageConfig
			if err := applyChanges(&set, c.changes); err != nil {
				t.Fatal(err)
			}
			want := of()
			c.want(&want)
			if diff := cmp.Diff(want, fill(set, of())); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAWrongChangeIsNamed(t *testing.T) {
	for change, want := range map[string]string{
		"FROM scratch":                      "FROM is not a valid change command",
		"CMD":                               "CMD requires at least one argument",
		"ENV lonely":                        "lonely has no value",
		`LABEL a="open`:                     "unfinished quote",
		"EXPOSE ninety":                     "ninety",
		"HEALTHCHECK CMD":                   "missing command after HEALTHCHECK CMD",
		"HEALTHCHECK NONE now":              "takes no arguments",
		"HEALTHCHECK --interval=soon CMD x": "soon",
		"HEALTHCHECK --interval=1us CMD x":  "cannot be less than 1ms",
		"HEALTHCHECK --retries=-1 CMD x":    "--retries must be at least 0",
		"HEALTHCHECK --colour=red CMD x":    "unknown flag: --colour",
		"HEALTHCHECK curl -f http://x":      `unknown type "curl" in HEALTHCHECK`,
	} {
		var c dockerspec.DockerOCIImageConfig
		if err := applyChanges(&c, []string{change}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", change, err)
		}
	}
}
