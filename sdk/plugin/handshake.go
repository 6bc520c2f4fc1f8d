package plugin

import goplugin "github.com/hashicorp/go-plugin"

// ProtocolVersion is the version of the protocol in sdk/proto that this SDK
// speaks. Additions do not change it; they are negotiated by features.
const ProtocolVersion = 1

// MaxMessage is the size limit of one gRPC message in bytes, both ways.
const MaxMessage = 16 << 20

// Environment variables the engine sets for a plugin, besides go-plugin's.
const (
	// EnvParent holds the engine's pid; the plugin exits with that process.
	EnvParent = "DAVIT_PLUGIN_PARENT"
	// EnvLogLevel holds the least level of log lines worth sending.
	EnvLogLevel = "DAVIT_PLUGIN_LOG_LEVEL"
)

// Handshake is what engine and plugin must agree upon to talk at all.
func Handshake() goplugin.HandshakeConfig {
	return goplugin.HandshakeConfig{
		ProtocolVersion:  ProtocolVersion,
		MagicCookieKey:   "DAVIT_PLUGIN",
		MagicCookieValue: "7d2b1c5e-davit-driver",
	}
}
