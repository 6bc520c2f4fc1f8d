package engine

import (
	"maps"
	"testing"
)

func TestLinksAreRead(t *testing.T) {
	for _, c := range []struct {
		links []string
		want  map[string]string
		err   string
	}{
		{nil, nil, ""},
		{[]string{"db", "cache:memory"}, map[string]string{"db": "db", "memory": "cache"}, ""},
		{[]string{"/db:/web/database"}, map[string]string{"database": "db"}, ""},
		{[]string{""}, nil, "empty string specified for links"},
		{[]string{"a:b:c"}, nil, "bad format for links: a:b:c"},
		{[]string{":alias"}, nil, "bad format for links: :alias"},
		{[]string{"db:"}, nil, "bad format for links: db:"},
	} {
		got, err := parseLinks(c.links)
		if err != nil && err.Error() != c.err || err == nil && c.err != "" || !maps.Equal(got, c.want) {
			t.Errorf("%q is %v, %v, want %v %s", c.links, got, err, c.want, c.err)
		}
	}
}
