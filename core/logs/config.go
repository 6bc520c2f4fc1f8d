package logs

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
)

// Config says how a container's log is written: Docker's options of the driver
// json-file.
type Config struct {
	MaxSize  int64 // bytes after which the file is rotated; 0: never
	MaxFile  int   // number of files kept, at least 1
	Compress bool  // rotated files are compressed

	tag               string
	labels, env       []string
	labelsRE, envRE   *regexp.Regexp
	mode, bufferLimit string
}

// ParseConfig reads log options over the engine's defaults. Errors are
// ErrInvalidArgument and have Docker's words.
func ParseConfig(options map[string]string, defaults Config) (Config, error) {
	c := defaults
	for key, value := range options {
		if err := c.set(key, value); err != nil {
			return Config{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	invalid := errdefs.ErrInvalidArgument.WithMessage
	switch {
	case c.Compress && (c.MaxFile < 2 || c.MaxSize <= 0):
		return Config{}, invalid("compress cannot be true when max-file is less than 2 or max-size is not set")
	case c.bufferLimit != "" && c.mode != "non-blocking":
		return Config{}, invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	}
	return c, nil
}

func (c *Config) set(key, value string) (err error) {
	switch key {
	case "max-size":
		if c.MaxSize = 0; value != "-1" {
			if c.MaxSize, err = units.FromHumanSize(value); err != nil {
				return fmt.Errorf("log-opt max-size: %w", err)
			}
		}
	case "max-file":
		if c.MaxFile, err = strconv.Atoi(value); err != nil || c.MaxFile < 1 {
			return errdefs.ErrInvalidArgument.WithMessage("max-file cannot be less than 1")
		}
	case "compress":
		if c.Compress, err = strconv.ParseBool(value); err != nil {
			return fmt.Errorf("log-opt compress: %w", err)
		}
	case "tag":
		c.tag = value
		_, err = expandTag(value, Facts{})
	case "labels":
		c.labels = strings.Split(value, ",")
	case "env":
		c.env = strings.Split(value, ",")
	case "labels-regex":
		c.labelsRE, err = regexp.Compile(value)
	case "env-regex":
		c.envRE, err = regexp.Compile(value)
	case "mode":
		// The monitor holds back a container that writes faster than the disk in both
		// modes: no line is dropped.
		if c.mode = value; value != "" && value != "blocking" && value != "non-blocking" {
			return fmt.Errorf("logger: logging mode not supported: %s", value)
		}
	case "max-buffer-size":
		c.bufferLimit = value
		_, err = units.RAMInBytes(value)
	default:
		return fmt.Errorf("unknown log opt '%s' for json-file log driver", key)
	}
	return err
}

// Facts are what the attributes of a container's log are made of.
type Facts struct {
	ID, Name           string
	ImageID, ImageName string // the image's digest, and the name it was asked for by
	Command            string
	DaemonName         string
	Labels             map[string]string
	Env                []string // KEY=value
}

// Attributes are what every entry of the container's log has, or nil.
func (c Config) Attributes(f Facts) (map[string]string, error) {
	attributes := map[string]string{}
	for key, value := range f.Labels {
		if slices.Contains(c.labels, key) || c.labelsRE != nil && c.labelsRE.MatchString(key) {
			attributes[key] = value
		}
	}
	for _, variable := range f.Env {
		key, value, _ := strings.Cut(variable, "=")
		if slices.Contains(c.env, key) || c.envRE != nil && c.envRE.MatchString(key) {
			attributes[key] = value
		}
	}
	if c.tag != "" {
		tag, err := expandTag(c.tag, f)
		if err != nil {
			return nil, err
		}
		attributes["tag"] = tag
	}
	if len(attributes) == 0 {
		return nil, nil
	}
	return attributes, nil
}

var tagField = regexp.MustCompile(`\{\{\s*\.(\w+)\s*\}\}`)

// expandTag fills in the fields of a tag: {{.ID}} and the others that Docker has.
// Conditions and functions of Go's templates are not known.
func expandTag(tag string, f Facts) (string, error) {
	short := func(id string) string {
		_, digits, found := strings.Cut(id, ":")
		if !found {
			digits = id
		}
		return digits[:min(12, len(digits))]
	}
	fields := map[string]string{
		"ID": short(f.ID), "FullID": f.ID, "Name": f.Name, "ImageID": short(f.ImageID), "ImageFullID": f.ImageID,
		"ImageName": f.ImageName, "Command": f.Command, "DaemonName": f.DaemonName,
	}
	unknown := ""
	expanded := tagField.ReplaceAllStringFunc(tag, func(match string) string {
		name := tagField.FindStringSubmatch(match)[1]
		value, ok := fields[name]
		if !ok {
			unknown = name
		}
		return value
	})
	rest := tagField.ReplaceAllString(tag, "")
	switch {
	case unknown != "":
		return "", fmt.Errorf("log-opt tag: no field %q: there are ID, FullID, Name, ImageID, ImageFullID, ImageName, Command and DaemonName", unknown)
	case strings.Contains(rest, "{{"):
		return "", fmt.Errorf("log-opt tag: %q: fields like {{.Name}} are understood, other actions of templates are not", tag)
	}
	return expanded, nil
}
