package config

import (
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

func (i Images) problems() (list []error) {
	wrong := func(format string, args ...any) { list = append(list, invalid(format, args...)) }
	if i.MaxConcurrentDownloads < 1 {
		wrong("images.max_concurrent_downloads = %d: must be at least 1", i.MaxConcurrentDownloads)
	}
	if i.MaxDownloadAttempts < 1 {
		wrong("images.max_download_attempts = %d: must be at least 1", i.MaxDownloadAttempts)
	}
	if time.Duration(i.RegistryTimeout) < time.Second {
		wrong("images.registry_timeout = %q: must be at least 1s", i.RegistryTimeout)
	}
	if i.CertsDir != "" && !filepath.IsAbs(i.CertsDir) {
		wrong("images.certs_dir = %q: must be an absolute path", i.CertsDir)
	}
	if i.MaxLayerSize < 1<<20 {
		wrong("images.max_layer_size = %d: must be at least 1m", i.MaxLayerSize)
	}
	if i.MaxLayerEntries < 1 {
		wrong("images.max_layer_entries = %d: must be at least 1", i.MaxLayerEntries)
	}
	if i.MaxPathDepth < 1 {
		wrong("images.max_path_depth = %d: must be at least 1", i.MaxPathDepth)
	}
	return list
}

func (r Registry) problems(name string) (list []error) {
	wrong := func(format string, args ...any) { list = append(list, invalid(format, args...)) }
	if name == "" || strings.Contains(name, "/") {
		wrong("registries: %q must be HOST or HOST:PORT", name)
	}
	if name == "*" && (len(r.Mirrors) > 0 || r.CA != "" || r.ClientCert != "") {
		wrong("registries.\"*\": all other registries can be blocked or insecure; they have no mirrors and certificates in common")
	}
	if r.Blocked && len(r.Mirrors) > 0 {
		wrong("registries.%q: a blocked registry has no use for mirrors", name)
	}
	for _, mirror := range r.Mirrors {
		if !isMirror(mirror) {
			wrong("registries.%q.mirrors: %q must be HOST[:PORT][/PREFIX], with https:// or http:// before it or without", name, mirror)
		}
	}
	for _, file := range []struct{ key, path string }{{"ca", r.CA}, {"client_cert", r.ClientCert}, {"client_key", r.ClientKey}} {
		if file.path != "" && !filepath.IsAbs(file.path) {
			wrong("registries.%q.%s = %q: must be an absolute path", name, file.key, file.path)
		}
	}
	if (r.ClientCert == "") != (r.ClientKey == "") {
		wrong("registries.%q: client_cert and client_key need each other", name)
	}
	return list
}

func isMirror(text string) bool {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		rest = text
	} else if scheme != "https" && scheme != "http" {
		return false
	}
	u, err := url.Parse("//" + rest)
	return err == nil && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}
