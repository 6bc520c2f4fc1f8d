package engine

import (
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// errLinks refuses what links did before there were networks with names:
// variables and lines of /etc/hosts of other containers.
var errLinks = fmt.Errorf("links are not supported on the default network: put the containers on a network of their own, where they find each other by name: %w", errdefs.ErrInvalidArgument)

// parseLinks reads links to other containers of a network, NAME or NAME:ALIAS:
// alias → name. Old clients write "/NAME:/OWNER/ALIAS".
func parseLinks(links []string) (map[string]string, error) {
	if len(links) == 0 {
		return nil, nil
	}
	parsed := map[string]string{}
	for _, link := range links {
		if link == "" {
			return nil, errInvalid.WithMessage("empty string specified for links")
		}
		name, alias, found := strings.Cut(link, ":")
		switch {
		case strings.Contains(alias, ":"):
			return nil, errInvalid.WithMessage("bad format for links: " + link)
		case !found:
			alias = name
		case strings.HasPrefix(name, "/"):
			name, alias = name[1:], path.Base(alias)
		}
		if name == "" || alias == "" {
			return nil, errInvalid.WithMessage("bad format for links: " + link)
		}
		parsed[alias] = name
	}
	return parsed, nil
}
