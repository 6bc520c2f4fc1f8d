package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/network"
)

// applyChanges changes a configuration by the Dockerfile instructions of
// --change. ErrInvalidArgument for one that is unknown or malformed.
func applyChanges(c *dockerspec.DockerOCIImageConfig, changes []string) error {
	for _, change := range changes {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(change), " ")
		apply, ok := instructions[strings.ToUpper(instruction)]
		if !ok {
			return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("%s is not a valid change command (valid: %s)",
				instruction, strings.Join(slices.Sorted(maps.Keys(instructions)), ", ")))
		}
		if rest = strings.TrimSpace(rest); rest == "" {
			return errdefs.ErrInvalidArgument.WithMessage(strings.ToUpper(instruction) + " requires at least one argument")
		}
		if err := apply(c, rest); err != nil {
			return fmt.Errorf("change %q: %w: %w", change, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// instructions follow the Dockerfile reference.
var instructions = map[string]func(c *dockerspec.DockerOCIImageConfig, rest string) error{
	"CMD": func(c *dockerspec.DockerOCIImageConfig, rest string) error {
		c.Cmd = command(c, rest)
		return nil
	},
	"ENTRYPOINT": func(c *dockerspec.DockerOCIImageConfig, rest string) error {
		c.Entrypoint = command(c, rest)
		return nil
	},
	"SHELL": func(c *dockerspec.DockerOCIImageConfig, rest string) error {
		return json.Unmarshal([]byte(rest), &c.Shell)
	},
	"ENV": func(c *dockerspec.DockerOCIImageConfig, rest string) error {
		return pairs(rest, func(key, value string) {
			c.Env = slices.DeleteFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, key+"=") })
			c.Env = append(c.Env, key+"="+value)
		})
	},
	"LABEL": func(c *dockerspec.DockerOCIImageConfig, rest string) error {
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		return pairs(rest, func(key, value string) { c.Labels[key] = value })
	},
	"EXPOSE": func(c *dockerspec.DockerOCIImageConfig, rest string) error {
		for _, text := range strings.Fields(rest) {
			port, err := network.ParsePort(text)
			if err != nil {
				return err
			}
			if c.ExposedPorts == nil {
				c.ExposedPorts = map[string]struct{}{}
			}
			c.ExposedPorts[port.String()] = struct{}{}
		}
		return nil
	},
	"VOLUME": func(c *dockerspec.DockerOCIImageConfig, rest string) error {
		var list []string
		if json.Unmarshal([]byte(rest), &list) != nil {
			list = strings.Fields(rest)
		}
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		for _, path := range list {
			c.Volumes[path] = struct{}{}
		}
		return nil
	},
	"HEALTHCHECK": healthcheck,
	"USER":        func(c *dockerspec.DockerOCIImageConfig, rest string) error { c.User = rest; return nil },
	"WORKDIR":     func(c *dockerspec.DockerOCIImageConfig, rest string) error { c.WorkingDir = rest; return nil },
	"STOPSIGNAL":  func(c *dockerspec.DockerOCIImageConfig, rest string) error { c.StopSignal = rest; return nil },
	"ONBUILD": func(c *dockerspec.DockerOCIImageConfig, rest string) error {
		c.OnBuild = append(c.OnBuild, rest)
		return nil
	},
}

// command is the exec form (a JSON list) or the shell form.
func command(c *dockerspec.DockerOCIImageConfig, rest string) []string {
	var list []string
	if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &list) == nil {
		return list
	}
	shell := []string{"/bin/sh", "-c"}
	if len(c.Shell) > 0 {
		shell = slices.Clone(c.Shell)
	}
	return append(shell, rest)
}

// pairs reads "key=value key="two words"", or the old "key value".
func pairs(rest string, set func(key, value string)) error {
	words, err := split(rest)
	if err != nil {
		return err
	}
	if !strings.Contains(words[0], "=") {
		key, value, ok := strings.Cut(rest, " ")
		if !ok {
			return fmt.Errorf("%s has no value", key)
		}
		set(key, strings.TrimSpace(value))
		return nil
	}
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok || key == "" {
			return fmt.Errorf("syntax error - can't find = in %q. Must be of the form: name=value", word)
		}
		set(key, value)
	}
	return nil
}

// split divides a line into words, with quotes and backslashes.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, escaped, started := rune(0), false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, started = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, started = r, true
		case r == ' ' || r == '\t':
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("unfinished quote in %q", line)
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}
