package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/distribution/reference"
)

// What a policy can accept, and what it can match beside repositories.
var (
	accepts = []string{"any", "digest", "signed", "reject"}
	special = []string{"*", "archive:"}
)

func policyProblems(list []Policy) (problems []error) {
	first := map[string]int{}
	for i, p := range list {
		if other, ok := first[p.Match]; ok {
			problems = append(problems, invalid("policy %d: policy %d has match = %q, too", i+1, other, p.Match))
		} else {
			first[p.Match] = i + 1
		}
		problems = append(problems, p.problems(i+1)...)
	}
	return problems
}

func (p Policy) problems(number int) (list []error) {
	wrong := func(format string, args ...any) {
		list = append(list, invalid("policy %d: %s", number, fmt.Sprintf(format, args...)))
	}
	isSpecial := slices.Contains(special, p.Match)
	if !isSpecial {
		if err := checkScope(p.Match); err != nil {
			wrong("match = %q: %v, or one of %s", p.Match, err, strings.Join(special, ", "))
		}
	}
	if !slices.Contains(accepts, p.Accept) {
		wrong("accept = %q: is none of %s", p.Accept, strings.Join(accepts, ", "))
	}
	if p.Match == "archive:" && (p.Accept == "digest" || p.Accept == "signed") {
		wrong("accept = %q: archives have neither digests that name them nor signatures: any or reject", p.Accept)
	}
	switch {
	case p.Accept == "signed" && len(p.Keys) == 0:
		wrong("accept = \"signed\" needs keys")
	case p.Accept != "signed" && (len(p.Keys) > 0 || p.SignedAs != ""):
		wrong("keys and signed_as are for accept = \"signed\" only")
	}
	for _, file := range p.Keys {
		if !filepath.IsAbs(file) {
			wrong("keys: %q must be an absolute path", file)
		}
	}
	if p.SignedAs != "" {
		if err := checkScope(p.SignedAs); err != nil {
			wrong("signed_as = %q: %v", p.SignedAs, err)
		}
		if isSpecial {
			wrong("signed_as needs a match that is a repository, or begins the names of some")
		}
	}
	return list
}

// checkScope wants HOST[:PORT][/PATH] as full names of repositories begin.
func checkScope(scope string) error {
	wrong := invalid("must be HOST[:PORT][/PATH], such as docker.io/library/debian")
	named, err := reference.ParseNormalizedNamed(scope + "/x")
	if err != nil {
		return wrong
	}
	host, _, _ := strings.Cut(scope, "/")
	if domain := reference.Domain(named); domain != host {
		return invalid("must begin with the registry in full, such as %s/", domain)
	} else if strings.ToLower(host) != host {
		return invalid("must be in lower case")
	}
	return nil
}
