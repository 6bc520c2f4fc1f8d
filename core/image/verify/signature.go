package verify

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// identity is what a signature must say.
type identity struct {
	digest     digest.Digest
	repository string // full name
	tag        string // empty where a digest names the image
}

// statement is cosign's simple signing payload (sigstore/cosign, SIGNATURE_SPEC.md;
// its fields are those of containers-signature(5)).
type statement struct {
	Critical struct {
		Type     string `json:"type"`
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
	} `json:"critical"`
}

// statementType is what cosign's signatures say they are.
const statementType = "cosign container image signature"

// check says what is wrong with a signature in base64 of a payload; nil if it holds.
// The payload is not looked into before a key has vouched for it.
func check(payload []byte, encoded string, keys []crypto.PublicKey, want identity) error {
	signature, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(signature) == 0 {
		return errors.New("it is not base64")
	}
	if !slices.ContainsFunc(keys, func(key crypto.PublicKey) bool { return holds(key, payload, signature) }) {
		return errors.New("none of the policy's keys made it")
	}
	var said statement
	if err := json.Unmarshal(payload, &said); err != nil {
		return fmt.Errorf("what it signs is not JSON: %w", err)
	}
	critical := said.Critical
	switch {
	case critical.Type != statementType:
		return fmt.Errorf("it is a %q, not a %q", critical.Type, statementType)
	case critical.Image.Digest != want.digest.String():
		return fmt.Errorf("it is of %q", critical.Image.Digest)
	}
	return want.isNamed(critical.Identity.Reference)
}

// isNamed compares the name in a signature with the wanted one. One without a tag,
// as cosign makes it, is for all tags; a digest needs no tag.
func (want identity) isNamed(text string) error {
	signed, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return fmt.Errorf("it is for the invalid name %q", text)
	}
	if name := fullName(signed); name != want.repository {
		return fmt.Errorf("it is for %s, not for %s", name, want.repository)
	}
	if tagged, ok := signed.(reference.Tagged); ok && want.tag != "" && tagged.Tag() != want.tag {
		return fmt.Errorf("it is for the tag %s, not for %s", tagged.Tag(), want.tag)
	}
	return nil
}
