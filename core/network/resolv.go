package network

import "github.com/davit-engine/davit/core/resolvconf"

// ResolvConf implements the engine's Networks.
func (s *Service) ResolvConf(containerID string, n resolvconf.Network, o resolvconf.Overrides) ([]byte, error) {
	host, path, err := s.Resolver.Read()
	if err != nil {
		return nil, err
	}
	made := host.For(n, o.Or(s.DNS))
	if made.Fallback {
		s.Log.Warn("containers cannot reach any of the host's name servers: public ones are used instead; [network] dns in the configuration names others", "file", path, "container", containerID)
	}
	return made.File(path), nil
}
