package logs

import (
	"maps"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestConfig(t *testing.T) {
	defaults := Config{MaxSize: 100, MaxFile: 3}
	facts := Facts{
		ID: "0123456789abcdef", Name: "web", ImageID: "sha256:fedcba9876543210", ImageName: "nginx:1", Command: "nginx -g daemon", DaemonName: "davit",
		Labels: map[string]string{"team": "blue", "tier.a": "1", "tier.b": "2", "other": ""}, Env: []string{"STAGE=test=1", "PATH=/bin", "LC_ALL=C"},
	}
	for name, c := range map[string]struct {
		options    map[string]string
		size       int64
		files      int
		compress   bool
		attributes map[string]string
	}{
		"nothing":  {size: 100, files: 3},
		"rotation": {options: map[string]string{"max-size": "2k", "max-file": "7", "compress": "true"}, size: 2000, files: 7, compress: true},
		"none":     {options: map[string]string{"max-size": "-1", "mode": "non-blocking", "max-buffer-size": "4m"}, files: 3},
		"labels":   {options: map[string]string{"labels": "team,missing", "env": "STAGE,HOME"}, size: 100, files: 3, attributes: map[string]string{"team": "blue", "STAGE": "test=1"}},
		"patterns": {options: map[string]string{"labels-regex": "^tier", "env-regex": "LC_.*"}, size: 100, files: 3, attributes: map[string]string{"tier.a": "1", "tier.b": "2", "LC_ALL": "C"}},
		"a tag": {
			options: map[string]string{"tag": "{{.Name}}/{{ .ID }}/{{.FullID}}/{{.ImageID}}/{{.ImageName}}/{{.DaemonName}}/{{.Command}} }"}, size: 100, files: 3,
			attributes: map[string]string{"tag": "web/0123456789ab/0123456789abcdef/fedcba987654/nginx:1/davit/nginx -g daemon }"},
		},
	} {
		config, err := ParseConfig(c.options, defaults)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if config.MaxSize != c.size || config.MaxFile != c.files || config.Compress != c.compress {
			t.Errorf("%s: %+v", name, config)
		}
		if got, err := config.Attributes(facts); err != nil || !maps.Equal(got, c.attributes) {
			t.Errorf("%s: attributes %v, %v; want %v", name, got, err, c.attributes)
		}
	}
	for text, options := range map[string]map[string]string{
		"unknown log opt 'colour' for json-file log driver":                                    {"colour": "red"},
		"max-file cannot be less than 1":                                                       {"max-file": "0"},
		"log-opt max-size":                                                                     {"max-size": "much"},
		"compress cannot be true when max-file is less than 2 or max-size is not set":          {"compress": "true", "max-file": "1"},
		"compress cannot be true when max-file is less than 2 or max-size is not set: invalid": {"compress": "1", "max-size": "-1"},
		"log-opt compress":                         {"compress": "perhaps"},
		"logging mode not supported: asynchronous": {"mode": "asynchronous"},
		"max-buffer-size option is only supported": {"max-buffer-size": "1m"},
		"error parsing regexp":                     {"env-regex": "("},
		`no field "Colour"`:                        {"tag": "{{.Colour}}"},
		"other actions of templates are not":       {"tag": "{{if .Name}}x{{end}}"},
		"log-opt tag: \"{{.Name\": fields like":    {"tag": "{{.Name"},
	} {
		if _, err := ParseConfig(options, defaults); err == nil || !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), strings.TrimSuffix(text, ": invalid")) {
			t.Errorf("%v: %v, want %q", options, err, text)
		}
	}
}
