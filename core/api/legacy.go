package api

import (
	"encoding/json"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// legacyMAC moves the container-wide MAC address of API versions before 1.44 to
// the endpoint of the network mode.
func legacyMAC(req *container.CreateRequest, mac string) error {
	if mac == "" {
		return nil
	}
	var address network.HardwareAddr
	if err := address.UnmarshalText([]byte(mac)); err != nil {
		return invalid("invalid MAC address %q", mac)
	}
	mode := network.NetworkBridge
	if req.HostConfig != nil && req.HostConfig.NetworkMode != "" && req.HostConfig.NetworkMode != network.NetworkDefault {
		mode = string(req.HostConfig.NetworkMode)
	}
	if req.NetworkingConfig == nil {
		req.NetworkingConfig = &network.NetworkingConfig{}
	}
	if req.NetworkingConfig.EndpointsConfig == nil {
		req.NetworkingConfig.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	endpoint := req.NetworkingConfig.EndpointsConfig[mode]
	if endpoint == nil {
		endpoint = &network.EndpointSettings{}
		req.NetworkingConfig.EndpointsConfig[mode] = endpoint
	}
	if len(endpoint.MacAddress) == 0 {
		endpoint.MacAddress = address
	}
	return nil
}

// legacyInspect adds to NetworkSettings the fields of the default network that
// API versions before 1.52 have at its top.
func legacyInspect(response container.InspectResponse) (map[string]json.RawMessage, error) {
	body, err := encode(response)
	if err != nil {
		return nil, err
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	settings := map[string]any{}
	if err := json.Unmarshal(fields["NetworkSettings"], &settings); err != nil {
		return nil, err
	}
	for key, empty := range map[string]any{
		"Bridge": "", "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": nil, "SecondaryIPv6Addresses": nil,
		"EndpointID": "", "Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "MacAddress": "",
	} {
		settings[key] = empty
	}
	networks, _ := settings["Networks"].(map[string]any)
	if bridge, ok := networks[network.NetworkBridge].(map[string]any); ok {
		for _, key := range []string{"EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress"} {
			if value, ok := bridge[key]; ok {
				settings[key] = value
			}
		}
	}
	fields["NetworkSettings"], err = encode(settings)
	return fields, err
}
