package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// layered makes an image of three layers, of which the later two change and remove
// what the first has.
func (c *client) layered() (image string) {
	c.Helper()
	base, image := c.own("base")+":1", c.own("image")+":1"
	c.Cleanup(func() { c.run("rmi", "-f", image, c.own("second"), base) })
	c.ok("import", archiveOf(c.T, map[string]string{"kept": "12345", "over": strings.Repeat("x", 1000), "gone": strings.Repeat("y", 500), "dir/inside": "z"}), base)
	step := func(from, to, name string, files map[string]string) {
		c.Helper()
		c.ok("create", "--name", c.own(name), from, "x")
		for path, body := range files {
			c.with(read(c.T, archiveOf(c.T, map[string]string{path: body}))).ok("cp", "-", c.own(name)+":/")
		}
		c.ok("commit", "-m", name, "-c", "ENV STEP="+name, c.own(name), to)
		c.ok("rm", c.own(name))
	}
	step(base, c.own("second"), "two", map[string]string{"over": "short", "new": "a new file"})
	step(c.own("second"), image, "three", map[string]string{"new": "another"})
	return image
}

func TestImageTree(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	image := c.layered()
	type count struct {
		Paths int
		Bytes int64
	}
	var list []struct {
		ID           string
		Names        []string
		Size, Wasted int64
		WastedFiles  int
		Layers       []struct {
			DiffID, Comment         string
			Size, Wasted            int64
			Added, Changed, Removed count
			SharedWith              []string
			Files                   []struct{ Kind, Path string }
		}
	}
	if err := json.Unmarshal([]byte(c.ok("image", "tree", "--files", "--format", "json", image)), &list); err != nil {
		t.Fatal(err)
	}
	tree := list[0]
	c.equal(tree.ID, c.ok("image", "inspect", "-f", "{{.Id}}", image))
	c.equal(fmt.Sprint(tree.Names, tree.Size, tree.Wasted, tree.WastedFiles, len(tree.Layers)), fmt.Sprint([]string{image}, 1506+5+10+7, 1000+10, 2, 3))
	second, third := tree.Layers[1], tree.Layers[2]
	c.equal(fmt.Sprint(second.Comment, second.Size, second.Wasted, second.Added, second.Changed, second.Removed), "two15 1000 {1 10} {1 5} {0 0}")
	c.equal(fmt.Sprint(third.Comment, third.Size, third.Wasted, third.Added, third.Changed, third.Removed), "three7 10 {0 0} {1 7} {0 0}")
	c.equal(fmt.Sprint(second.Files), "[{added /new} {changed /over}]")
	if !slices.Contains(tree.Layers[0].SharedWith, c.own("base")+":1") || slices.Contains(third.SharedWith, c.own("base")+":1") {
		t.Errorf("layers are shared with %v and %v", tree.Layers[0].SharedWith, third.SharedWith)
	}
	var ids []string
	for _, layer := range tree.Layers {
		ids = append(ids, layer.DiffID)
	}
	body, err := json.Marshal(ids)
	if err != nil {
		t.Fatal(err)
	}
	c.equal(string(body), c.ok("image", "inspect", "-f", "{{json .RootFS.Layers}}", image))
	shown := c.ok("image", "tree", "--files", tree.ID[7:19])
	for _, want := range []string{"3 layers, 1.53kB in files", "1.01kB wasted at 2 paths", "wastes 1kB of the layers before", "A /new  10B", "C /over  1kB → 5B  content"} {
		c.contains(shown, want)
	}
	c.equal(c.ok("image", "tree", "--format", "{{.Wasted}} {{len .Layers}}", image), "1010 3")
	c.fails(1, "No such image: "+c.own("nobody")+":latest", "image", "tree", c.own("nobody"))
}

func TestImageDiff(t *testing.T) {
	t.Parallel()
	c := newClient(t, "davit", engine)
	base, other := c.own("base"), c.own("other")
	c.Cleanup(func() { c.run("rmi", "-f", base, other) })
	c.ok("run", "--name", c.own("box"), "busybox", "sh", "-c", changes)
	c.Cleanup(func() { c.run("rm", "-f", c.own("box")) })
	c.ok("tag", "busybox", base)
	c.ok("commit", "-c", "ENV A=1", "-c", "LABEL who=me", "-c", `CMD ["other"]`, c.own("box"), other)
	out := c.ok("image", "diff", base, other)
	// The files are those of the container's own changes, apart from directories of
	// which only the times are others.
	var want, got []string
	for line := range strings.SplitSeq(c.ok("diff", c.own("box")), "\n") {
		if !slices.Contains([]string{"C /etc", "C /data", "C /tmp", "C /bin", "C /var"}, line) {
			want = append(want, line)
		}
	}
	for line := range strings.SplitSeq(out, "\n") {
		if strings.HasPrefix(line, "A /") || strings.HasPrefix(line, "C /") || strings.HasPrefix(line, "D /") {
			got = append(got, strings.Split(line, "  ")[0])
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := difference(want, got); diff != "" {
		t.Errorf("the container (-) and the images (+) differ in:\n%s", diff)
	}
	for _, line := range []string{"Env.A: none → \"1\"", "Labels.who: none → \"me\"", `Cmd: ["sh"] → ["other"]`, "C /root  mode", "1 layer shared"} {
		c.contains(out, line)
	}
	c.contains(c.ok("image", "diff", other, base), "Env.A: \"1\" → none")
	c.contains(c.ok("image", "diff", base, "busybox"), "0 added (0B), 0 changed (0B), 0 removed (0B), 0 of the configuration; 1 layer shared")
	var found struct {
		SharedLayers int
		Files        []struct{ Kind, Path string }
	}
	if err := json.Unmarshal([]byte(c.ok("image", "diff", "--format", "json", base, other)), &found); err != nil || found.SharedLayers != 1 || len(found.Files) != len(got) {
		t.Errorf("%+v, %v", found, err)
	}
	c.fails(1, "No such image", "image", "diff", base, c.own("nobody"))
}
