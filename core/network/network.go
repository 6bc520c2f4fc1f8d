// Package network keeps the engine's networks: their records, which driver each
// is bound to, the names of the containers on them, and the pool of network
// namespaces. The addresses and links are the network drivers'.
package network

import (
	"time"

	mobynetwork "github.com/moby/moby/api/types/network"

	sdknetwork "github.com/davit-engine/davit/sdk/network"
)

// Names of the networks that every engine has.
const (
	Bridge = "bridge"
	Host   = "host"
	None   = "none"
)

// Network is the record of one network.
type Network struct {
	ID      string
	Name    string
	Driver  string // network driver; "host" and "null" need none
	Created time.Time
	Request mobynetwork.CreateRequest // as asked for
	Pools   []sdknetwork.Pool         // as made by the driver
}

// IPv4 says whether containers on the network get IPv4 addresses.
func (n Network) IPv4() bool { return n.Request.EnableIPv4 == nil || *n.Request.EnableIPv4 }

// IPv6 says whether containers on the network get IPv6 addresses.
func (n Network) IPv6() bool { return n.Request.EnableIPv6 != nil && *n.Request.EnableIPv6 }

// UserDefined says whether containers on the network find each other by name.
func (n Network) UserDefined() bool { return n.Name != Bridge && n.Name != Host && n.Name != None }

// Attachment asks for, and records, one container on one network.
type Attachment struct {
	sdknetwork.Attachment
	// ContainerName and Aliases are what DNS answers for, besides the short ID.
	ContainerName string
	Aliases       []string
	Hostname      string
	// Links are names of the container's own for others on the network (--link):
	// what it calls them → what they are called.
	Links map[string]string
}
