package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestImagesAreAsDockerHasThem gives the same images to Debian's dockerd and to
// davit, and compares what they answer: JSON field by field, and the words of
// Docker's client.
func TestImagesAreAsDockerHasThem(t *testing.T) {
	t.Parallel()
	_, socket := dockerDaemon(t)
	e := alone(t)
	c := newClient(t, "docker", e)
	c.ok("import", "-c", `CMD ["sh"]`, "-c", "EXPOSE 80", "-c", "VOLUME /v", writeBusybox(t), "one:1")
	c.ok("run", "--network", "none", "--name", "made", "one:1", "sh", "-c", "echo text >/file")
	c.ok("commit", "-m", "first", "-a", "me", "made", "two:1")
	c.ok("rm", "made")
	c.ok("create", "--name", "made", "two:1")
	c.ok("commit", "-c", "ENV A=1 B=2", "-c", "LABEL a=b", "-c", `HEALTHCHECK --interval=5s CMD x`, "-m", "second", "made", "two:2") // no layer
	c.ok("rm", "-v", "made")
	id := map[string]string{}
	for _, name := range []string{"one:1", "two:1", "two:2"} {
		id[name] = c.ok("image", "inspect", "-f", "{{.Id}}", name)
	}
	file := filepath.Join(t.TempDir(), "all.tar")
	c.ok("save", "-o", file, "one:1", "two")
	c.ok("rmi", "-f", id["one:1"], id["two:1"], id["two:2"])
	both := map[string]string{"docker": socket, "davit": e.Socket}
	say := func(engine string, args ...string) string {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, "docker", append([]string{"-H", "unix://" + both[engine]}, args...)...)
		cmd.Env = append(os.Environ(), "DOCKER_API_VERSION=1.41") // the most that both speak
		out, err := cmd.CombinedOutput()
		if err != nil {
			out = append(out, err.Error()...)
		}
		return string(out)
	}
	for engine := range both {
		say(engine, "load", "-i", file)
		say(engine, "tag", "one:1", "other/name:tag")
		// Its container is known by the same words in both.
		say(engine, "create", "--name", "user", "two:1")
	}

	for _, path := range []string{
		"/v1.40/images/two:2/json", "/v1.41/images/two:2/json", "/v1.41/images/one:1/json", "/v1.41/images/two:2/history", "/v1.41/images/one:1/history",
		"/v1.41/images/json", "/v1.41/images/json?all=1", "/v1.40/images/json?digests=1", "/v1.41/images/json?filters={%22dangling%22:[%22true%22]}",
		"/v1.41/images/json?filters={%22before%22:[%22two:2%22]}", "/v1.41/images/json?filters={%22since%22:[%22one:1%22]}",
		"/v1.41/images/json?filters={%22reference%22:[%22*/name%22,%22two:1%22]}", "/v1.41/images/json?filters={%22label%22:[%22a=b%22]}",
	} {
		want, got := imagesJSON(t, both["docker"], path), imagesJSON(t, both["davit"], path)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("GET %s (-docker +davit):\n%s", path, diff)
		}
	}

	one, two := id["one:1"], id["two:1"]
	for _, command := range [][]string{
		{"images", "--filter", "before=two:2", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.Digest}} {{.Containers}} {{.VirtualSize}} {{.SharedSize}}"},
		{"images", "--filter", "since=two:1", "--format", "{{json .Repository}}"}, {"images", "-q", "--no-trunc", "two:2"}, {"images", "two:nosuch"},
		{"images", "--filter", "label=a", "-q"}, {"images", "--filter", "reference=o*:1", "-q"}, {"images", "--filter", "before=nosuch"},
		{"images", "--digests", "--no-trunc", "other/name"}, {"image", "ls", "--filter", "dangling=true"},
		{"history", "--no-trunc", "--format", "{{.ID}} {{.CreatedBy}} {{.Size}} {{.Comment}}", "two:2"}, {"history", "-q", "one:1"}, {"history", "nosuch"},
		{"image", "inspect", "-f", "{{.Parent}}{{.DockerVersion}}{{.Container}}{{.ContainerConfig.Cmd}}{{.VirtualSize}}{{.Config.Hostname}}", "two:2"},
		{"inspect", "-f", "{{.Id}}", strings.TrimPrefix(two, "sha256:")[:9]},
		{"tag", "nosuch", "x"}, {"tag", "two:2", "x@" + two}, {"tag", "two:2", "UPPER"},
		{"rmi", "nosuch"}, {"rmi", "-f", "nosuch"}, {"rmi", "registry.local:5000/no/such:tag"}, {"rmi", "0123456789ab"},
		{"rmi", one}, {"rmi", "two:1"}, {"rmi", two}, {"rmi", two[7:19]}, {"rmi", "other/name:tag"},
		{"image", "prune", "-f"}, {"image", "prune", "-f", "--filter", "label=nosuch"}, {"image", "prune", "-af", "--filter", "until=24h"},
		{"image", "prune", "-af", "--filter", "label!=a"}, {"image", "prune", "-af"}, {"images", "-q", "--no-trunc"},
		{"rmi", "-f", two}, {"images", "-aq"}, {"save", "-o", "/dev/null", "nosuch"}, {"commit", "nosuch"},
	} {
		want, got := said(say("docker", command...)), said(say("davit", command...))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("docker %q (-docker +davit):\n%s", command, diff)
		}
	}
}

// containerID is in texts about images in use.
var containerID = regexp.MustCompile(`container [0-9a-f]{12}`)

// said are the lines of an output in which nothing is of one engine alone. Lists of
// images that were made in one second have no order.
func said(out string) []string {
	lines := strings.Split(containerID.ReplaceAllString(out, "container ID"), "\n")
	slices.Sort(lines)
	return lines
}

// imagesJSON is an answer without what differs by engine: what keeps the layers, and
// when names were set.
func imagesJSON(t *testing.T, socket, path string) any {
	t.Helper()
	status, body := askSocket(t, socket, http.MethodGet, path, "")
	if status != http.StatusOK {
		t.Errorf("GET %s is answered %d %s", path, status, body)
	}
	var answer any
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	if fields, ok := answer.(map[string]any); ok {
		for _, known := range []string{"GraphDriver", "Metadata"} {
			if fields[known] == nil {
				t.Errorf("GET %s has no %s", path, known)
			}
			delete(fields, known)
		}
	}
	if list, ok := answer.([]any); ok && !strings.HasSuffix(path, "/history") {
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(key(a), key(b)) })
		for _, entry := range list {
			if fields, ok := entry.(map[string]any); ok && fields["RepoDigests"] == nil {
				fields["RepoDigests"] = []any{} // null and empty are both Docker's
			}
		}
	}
	return answer
}

func key(entry any) string {
	fields, _ := entry.(map[string]any)
	id, _ := fields["Id"].(string)
	return id
}
