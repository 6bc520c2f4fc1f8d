package container

import (
	"crypto/rand"
	"encoding/hex"
	"math/big"
)

var (
	adjectives = []string{"amber", "bold", "brisk", "calm", "clever", "cosmic", "eager", "early", "fair", "gentle", "glad", "golden", "happy", "honest", "humble", "jolly", "keen", "kind", "lively", "lucid", "mellow", "merry", "mighty", "modest", "neat", "nimble", "noble", "patient", "placid", "proud", "quick", "quiet", "ready", "rustic", "serene", "sharp", "silent", "silver", "solid", "spry", "steady", "sunny", "swift", "tidy", "tranquil", "vivid", "warm", "wise", "witty", "zesty"}
	nouns      = []string{"albatross", "anchor", "barge", "beacon", "bosun", "bowsprit", "breeze", "brig", "buoy", "capstan", "clipper", "compass", "coral", "cormorant", "crane", "current", "cutter", "davit", "dinghy", "dolphin", "ferry", "fjord", "frigate", "galley", "gannet", "harbor", "heron", "jetty", "kayak", "keel", "ketch", "lagoon", "lantern", "lighter", "mast", "narwhal", "otter", "pelican", "pilot", "quay", "rudder", "schooner", "seal", "sextant", "sloop", "spinnaker", "tern", "tide", "trawler", "windlass"}
)

// NewID answers a fresh container ID: 64 hexadecimal digits.
func NewID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// RandomName answers a name for a container that was given none.
func RandomName() string {
	return pick(adjectives) + "_" + pick(nouns)
}

func pick(words []string) string {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(words))))
	if err != nil {
		return words[0]
	}
	return words[n.Int64()]
}
