// Package verify decides whether an image may come in: by the repository that it comes
// from, and where the policy says so by a signature in cosign's format. It asks
// registries for signatures, and for nothing else.
package verify

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Accept is what a rule lets in.
type Accept string

// What rules can let in.
const (
	Any    Accept = "any"
	Digest Accept = "digest" // what a digest names
	Signed Accept = "signed" // what one of the rule's keys has signed
	Reject Accept = "reject" // nothing
)

// Matches that are no repositories.
const (
	AnyOther = "*"        // what no other rule is for
	Archive  = "archive:" // archives that are loaded or imported
)

// maxReasons is how many signatures a refusal says something of.
const maxReasons = 5

// Rule is for the repositories below one name.
type Rule struct {
	// Match is HOST[:PORT][/PATH], which stands for itself and for all below it,
	// [AnyOther] or [Archive].
	Match  string
	Accept Accept
	Keys   []string // files with public keys (PEM), for Signed
	// SignedAs is what signatures have in Match's place, where images were copied
	// from elsewhere with theirs; empty: Match.
	SignedAs string
}

// Policy is what comes in. The zero value lets everything in. It is safe for
// concurrent use.
type Policy struct {
	// Rules are in the order of the configuration. The one with the longest match
	// counts; what none is for comes in.
	Rules []Rule
}

// BeforeAsking refuses a name that is refused whatever its registry has.
// ErrPermissionDenied.
func (p Policy) BeforeAsking(named reference.Named) error {
	rule := p.of(fullName(named))
	if rule.Accept == Reject {
		return rule.refuse(named, "nothing from there is accepted", "take the image from elsewhere, or change the policy")
	}
	if _, ok := named.(reference.Digested); rule.Accept == Digest && !ok {
		return rule.refuse(named, "only references by digest are accepted",
			fmt.Sprintf("name the image %s@sha256:..., as whoever vouches for it does, or change the policy", reference.FamiliarName(named)))
	}
	return nil
}

// Image refuses a manifest or index that the registry has under a name unless it is
// signed, where the policy wants that. The sources are asked for signatures in their
// order; the last is the registry itself. ErrPermissionDenied if there is none that
// holds; an error of another kind if that cannot be known.
func (p Policy) Image(ctx context.Context, named reference.Named, target digest.Digest, sources []Source) error {
	rule := p.of(fullName(named))
	if rule.Accept != Signed {
		return nil
	}
	keys, err := readKeys(rule.Keys)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", rule.place(), err, errdefs.ErrInternal)
	}
	s := search{keys: keys, want: rule.identity(named, target), left: maxSignatures}
	found, err := s.run(ctx, sources)
	if err != nil {
		return fmt.Errorf("reading the signatures of %s@%s: %w", reference.FamiliarName(named), target, err)
	}
	if found {
		return nil
	}
	what := fmt.Sprintf("%s has no signature", target)
	if n := len(s.reasons); n > 0 {
		if n > maxReasons {
			s.reasons = append(s.reasons[:maxReasons], fmt.Sprintf("and %d more", n-maxReasons))
		}
		what = fmt.Sprintf("no signature of %s holds (%s)", target, strings.Join(s.reasons, "; "))
	}
	return rule.refuse(named, what, fmt.Sprintf("have it signed with one of the keys %s (cosign sign --key), or change the policy", strings.Join(rule.Keys, ", ")))
}

// Archive refuses an archive that would be loaded or imported. Nobody signs archives,
// and no digest names them: they come in by their own rule, or by that for all other
// images if it lets any in. ErrPermissionDenied.
func (p Policy) Archive() error {
	rule := p.exact(Archive)
	if rule.Accept == Any {
		return nil
	}
	return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf(
		"images from archives are refused by %s: pull the image from a registry, or add a policy with match = %q and accept = %q", rule.place(), Archive, Any))
}

// fullName is a repository's name with the registry as DNS sees it: in one case.
func fullName(named reference.Named) string {
	return strings.ToLower(reference.Domain(named)) + "/" + reference.Path(named)
}

// placed is a rule at its place, from 1 on; zero for none.
type placed struct {
	Rule
	number int
}

// of is the rule for a repository's full name.
func (p Policy) of(name string) placed {
	best := p.exact(AnyOther)
	length := 0
	for i, rule := range p.Rules {
		if n := len(rule.Match); n > length && (name == rule.Match || strings.HasPrefix(name, rule.Match+"/")) {
			best, length = placed{rule, i + 1}, n
		}
	}
	return best
}

// exact is the rule with a match, or that for all others.
func (p Policy) exact(match string) placed {
	for _, m := range []string{match, AnyOther} {
		for i, rule := range p.Rules {
			if rule.Match == m {
				return placed{rule, i + 1}
			}
		}
	}
	return placed{Rule: Rule{Accept: Any}}
}

func (r placed) place() string {
	return fmt.Sprintf("policy %d of the configuration (match = %q, accept = %q)", r.number, r.Match, r.Accept)
}

func (r placed) refuse(named reference.Named, what, do string) error {
	return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("%s is refused by %s: %s: %s", reference.FamiliarString(named), r.place(), what, do))
}

// identity is what a signature must say of an image.
func (r placed) identity(named reference.Named, target digest.Digest) identity {
	want := identity{digest: target, repository: fullName(named)}
	if r.SignedAs != "" {
		want.repository = r.SignedAs + strings.TrimPrefix(want.repository, r.Match)
	}
	if _, ok := named.(reference.Digested); ok {
		return want
	}
	if tagged, ok := named.(reference.Tagged); ok {
		want.tag = tagged.Tag()
	}
	return want
}
