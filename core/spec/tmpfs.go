package spec

import (
	"slices"
	"strings"
)

// opposites are the mount flags that a tmpfs may have; each undoes the one it
// stands beside.
var opposites = map[string]string{
	"rw": "ro", "ro": "rw", "suid": "nosuid", "nosuid": "suid", "dev": "nodev", "nodev": "dev", "exec": "noexec", "noexec": "exec",
	"sync": "async", "async": "sync", "atime": "noatime", "noatime": "atime", "diratime": "nodiratime", "nodiratime": "diratime",
	"relatime": "norelatime", "norelatime": "relatime", "strictatime": "nostrictatime", "nostrictatime": "strictatime",
	"defaults": "", "private": "", "rprivate": "",
}

// tmpfsKeys are tmpfs's own options (tmpfs(5)) that take a value.
var tmpfsKeys = []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"}

// TmpfsOptions are the options of a tmpfs: Docker's defaults and what was asked
// for. Of options that contradict each other the last one counts. An unknown one
// is ErrInvalidArgument.
func TmpfsOptions(wanted []string) ([]string, error) {
	options := []string{"noexec", "nosuid", "nodev"}
	for _, option := range wanted {
		key, _, valued := strings.Cut(option, "=")
		opposite, flag := opposites[option]
		if !flag && (!valued || !slices.Contains(tmpfsKeys, key)) {
			return nil, invalid("invalid tmpfs option %q", []string{option})
		}
		options = slices.DeleteFunc(options, func(known string) bool {
			return known == option || flag && known == opposite || valued && strings.HasPrefix(known, key+"=")
		})
		options = append(options, option)
	}
	return options, nil
}
