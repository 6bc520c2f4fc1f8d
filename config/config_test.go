package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestDefaultFileIsTheDefaults(t *testing.T) {
	got, err := Load("davit.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	// Written down as empty.
	want.Network.DNS, want.Network.DNSSearch, want.Network.DNSOptions = []string{}, []string{}, []string{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultFileShowsEveryKey(t *testing.T) {
	data, err := os.ReadFile("davit.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"root", "run", "listen", "group", "log_level", "cgroup_driver", "cgroup_parent", "[defaults]", "[plugins]", "dirs", "auto_mtls",
		"start_timeout", "call_timeout", "[plugins.config.", "[logs]", "max_size", "max_file", "[network]", "netns_pool",
		"resolv_conf", "dns =", "dns_search", "dns_options", "[images]", "max_concurrent_downloads",
		"max_download_attempts", "registry_timeout", "certs_dir", "min_free", "[registries.", "mirrors", "blocked", "insecure", "ca", "client_cert", "client_key",
		"[[policies]]", "match", "accept", "keys", "signed_as",
	} {
		if !strings.Contains(string(data), "\n"+key) && !strings.Contains(string(data), "\n#"+key) {
			t.Errorf("%s is not in the default file", key)
		}
	}
}

func TestEverythingCanBeSet(t *testing.T) {
	got, err := Parse("x.toml", []byte(`
root = "/r"
run = "/s"
listen = ["unix:///x.sock", "fd://"]
group = "g"
log_level = "debug"
cgroup_driver = "systemd"
cgroup_parent = "x-y.slice"
experimental = true
init = true
init_path = "/i"
cdi_spec_dirs = ["/c"]
userns_remap = "100000-165535"
[defaults]
storage = "btrfs"
[plugins]
dirs = ["/p"]
auto_mtls = false
start_timeout = "90s"
call_timeout = "1h"
[plugins.config.network-bridge]
bridge = "b0"
pools = ["10.0.0.0/8"]
mtu = 1400
[logs]
max_size = "1g"
max_file = 5
[network]
netns_pool = 0
resolv_conf = "/h/resolv.conf"
dns = ["9.9.9.9", "2620:fe::fe"]
dns_search = ["a.example"]
dns_options = ["edns0"]
[images]
max_concurrent_downloads = 7
max_download_attempts = 2
registry_timeout = "1m"
certs_dir = "/certs"
max_layer_size = "1g"
max_layer_entries = 5
min_free = "2.5%"
max_path_depth = 6
[registries."localhost:5000"]
insecure = true
[registries."docker.io"]
mirrors = ["m.example:5000", "http://n.example/cache"]
ca = "/ca"
client_cert = "/cert"
client_key = "/key"
[registries."*"]
blocked = true
[[policies]]
match = "docker.io/library"
accept = "signed"
keys = ["/k.pem"]
signed_as = "r.example/official"
[[policies]]
match = "*"
accept = "reject"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Root: "/r", Run: "/s", Listen: []string{"unix:///x.sock", "fd://"}, Group: "g", LogLevel: "debug", CgroupDriver: Systemd, CgroupParent: "x-y.slice",
		Experimental: true, Init: true, InitPath: "/i", UsernsRemap: "100000-165535", CDISpecDirs: []string{"/c"},
		Defaults: Defaults{Storage: "btrfs", Network: "bridge", Runtime: "native", Volume: "local"},
		Plugins: Plugins{
			Dirs: []string{"/p"}, StartTimeout: Duration(90 * time.Second), CallTimeout: Duration(time.Hour),
			Config: map[string]map[string]any{
				"network-bridge": {"bridge": "b0", "pools": []any{"10.0.0.0/8"}, "mtu": int64(1400)},
			},
		},
		Logs:    Logs{MaxSize: 1 << 30, MaxFile: 5},
		Network: Network{ResolvConf: "/h/resolv.conf", DNS: []string{"9.9.9.9", "2620:fe::fe"}, DNSSearch: []string{"a.example"}, DNSOptions: []string{"edns0"}},
		Images:  Images{MaxConcurrentDownloads: 7, MaxDownloadAttempts: 2, RegistryTimeout: Duration(time.Minute), CertsDir: "/certs", MaxLayerSize: 1 << 30, MaxLayerEntries: 5, MaxPathDepth: 6, MinFree: Share{Percent: 2.5}},
		Registries: map[string]Registry{
			"localhost:5000": {Insecure: true},
			"docker.io":      {Mirrors: []string{"m.example:5000", "http://n.example/cache"}, CA: "/ca", ClientCert: "/cert", ClientKey: "/key"},
			"*":              {Blocked: true},
		},
		Policies: []Policy{
			{Match: "docker.io/library", Accept: "signed", Keys: []string{"/k.pem"}, SignedAs: "r.example/official"},
			{Match: "*", Accept: "reject"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.Level() != slog.LevelDebug {
		t.Errorf("level %v", got.Level())
	}
	if got.LogLevel = "trace"; got.Level() != LevelTrace {
		t.Errorf("level %v", got.Level())
	}
}

func TestMistakesAreExplained(t *testing.T) {
	for text, want := range map[string]string{
		"\n\nrot = \"/x\"":                                                       `f.toml:3:1: unknown key "rot"; did you mean "root"?`,
		"[plugins]\ndris = []":                                                   `f.toml:2:1: unknown key "plugins.dris"; did you mean "plugins.dirs"?`,
		"max_file = 3":                                                           `did you mean "logs.max_file"?`,
		"[network]\nfrobnicate_everything = true":                                `known keys: netns_pool, resolv_conf, dns, dns_search, dns_options`,
		"root = 5":                                                               `f.toml:1:8: key "root"`,
		"root = [":                                                               `f.toml:1`,
		"[plugins]\nstart_timeout = \"soon\"":                                    `"soon" is not a duration`,
		"[logs]\nmax_size = \"big\"":                                             `"big" is not a size`,
		"root = \"var\"":                                                         `f.toml: root = "var": must be an absolute path`,
		"log_level = \"loud\"":                                                   `none of trace, debug, info, warn, error`,
		"listen = []":                                                            `at least one address`,
		"listen = [\"http://x\"]":                                                `neither unix:///PATH nor fd://`,
		"listen = [\"tcp://127.0.0.1:2375\"]":                                    `davit does not serve TCP`,
		"cgroup_parent = \"davit\"":                                              `must be a path such as "/davit"`,
		"[network]\ndns = [\"dns.example\"]":                                     `"dns.example" is not an IP address`,
		"[network]\nresolv_conf = \"x\"":                                         `must be an absolute path`,
		"[network]\ndns_search = [\"a b\"]":                                      `network.dns_search: "a b" is not one word`,
		"[network]\ndns_options = [\"\"]":                                        `network.dns_options: "" is not one word`,
		"[logs]\nmax_file = 0":                                                   `must be at least 1`,
		"[defaults]\nvolume = \"\"":                                              `defaults.volume = "": must be the name of a driver`,
		"[registries.\"https://x\"]\ninsecure=true":                              `must be HOST or HOST:PORT`,
		"[registries.\"x\"]\nmirrors=[\"ftp://y\"]":                              `registries."x".mirrors: "ftp://y" must be HOST[:PORT][/PREFIX]`,
		"[registries.\"x\"]\nmirrors=[\"\"]":                                     `registries."x".mirrors: "" must be HOST[:PORT][/PREFIX]`,
		"[registries.\"x\"]\nmirrors=[\"y\"]\nblocked=true":                      `a blocked registry has no use for mirrors`,
		"[registries.\"x\"]\nclient_cert=\"/y\"":                                 `client_cert and client_key need each other`,
		"[registries.\"x\"]\nca=\"y\"":                                           `registries."x".ca = "y": must be an absolute path`,
		"[registries.\"*\"]\nmirrors=[\"y\"]":                                    `have no mirrors and certificates in common`,
		"[images]\nmax_concurrent_downloads=0":                                   `images.max_concurrent_downloads = 0: must be at least 1`,
		"[images]\nmax_download_attempts=0":                                      `images.max_download_attempts = 0: must be at least 1`,
		"[images]\nregistry_timeout=\"1ms\"":                                     `must be at least 1s`,
		"run = \"/" + strings.Repeat("x", 80) + "\"":                             `81 characters are too many`,
		"[[policies]]\nmatch=\"*\"\nacept=\"any\"":                               `f.toml:3:1: unknown key "policies.acept"; did you mean "policies.accept"?`,
		"[[policies]]\nmatch=\"debian\"\naccept=\"any\"":                         `policy 1: match = "debian": must begin with the registry in full, such as docker.io/, or one of *, archive:`,
		"[[policies]]\nmatch=\"x.io/a:1\"\naccept=\"any\"":                       `must be HOST[:PORT][/PATH]`,
		"[[policies]]\naccept=\"any\"":                                           `policy 1: match = "": must be HOST[:PORT][/PATH]`,
		"[[policies]]\nmatch=\"index.docker.io\"\naccept=\"any\"":                `such as docker.io/`,
		"[[policies]]\nmatch=\"X.io\"\naccept=\"any\"":                           `must be in lower case`,
		"[[policies]]\nmatch=\"*\"":                                              `policy 1: accept = "": is none of any, digest, signed, reject`,
		"[[policies]]\nmatch=\"*\"\naccept=\"signed\"":                           `accept = "signed" needs keys`,
		"[[policies]]\nmatch=\"*\"\naccept=\"any\"\nkeys=[\"/k\"]":               `keys and signed_as are for accept = "signed" only`,
		"[[policies]]\nmatch=\"x.io\"\naccept=\"signed\"\nkeys=[\"k.pem\"]":      `policy 1: keys: "k.pem" must be an absolute path`,
		"[[policies]]\nmatch=\"archive:\"\naccept=\"signed\"\nkeys=[\"/k.pem\"]": `archives have neither digests`,
		"[[policies]]\nmatch=\"*\"\naccept=\"signed\"\nkeys=[\"/k\"]\nsigned_as=\"x.io\"":      `signed_as needs a match that is a repository`,
		"[[policies]]\nmatch=\"*\"\naccept=\"any\"\n[[policies]]\nmatch=\"*\"\naccept=\"any\"": `policy 2: policy 1 has match = "*", too`,
		"cgroup_driver = \"x\"":                                   `none of cgroupfs, systemd`,
		"cgroup_driver = \"systemd\"\ncgroup_parent = \"/davit\"": `cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`,
	} {
		_, err := Parse("f.toml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		} else if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v is not an invalid argument", text, err)
		}
	}
}

func TestLoadNamesTheMissingFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.toml")); err == nil || !strings.Contains(err.Error(), "none.toml") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	data, err := os.ReadFile("davit.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f.toml", data)
		if err == nil && c.Validate() != nil {
			t.Error("accepted what is not valid")
		}
	})
}

func TestParent(t *testing.T) {
	for want, c := range map[string]Config{
		"/davit": {CgroupDriver: CgroupFS}, "/x": {CgroupDriver: CgroupFS, CgroupParent: "/x"},
		"system.slice": {CgroupDriver: Systemd}, "x.slice": {CgroupDriver: Systemd, CgroupParent: "x.slice"},
	} {
		if got := c.Parent(); got != want {
			t.Errorf("%+v: %s, want %s", c, got, want)
		}
	}
}
