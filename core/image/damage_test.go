package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/davit-engine/davit/core/filter"
)

// file is where a blob is.
func (w *world) file(d digest.Digest) string {
	return filepath.Join(w.options.Root, "content", "blobs", string(d.Algorithm()), d.Encoded())
}

// harm is what others do to the file of a blob.
type harm func(t *testing.T, path string)

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}
}

// spoil changes a byte in the middle, as a disk may.
func spoil(t *testing.T, path string) {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body[len(body)/2] ^= 0x55
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
}

// parts are the blobs of an image.
func (w *world) parts(ref string) (manifest, config digest.Digest, layers []digest.Digest) {
	w.Helper()
	img, err := w.Resolve(w.Context(), ref)
	if err != nil {
		w.Fatal(err)
	}
	m, err := w.manifest(scope(w.Context()), img.Manifest)
	if err != nil {
		w.Fatal(err)
	}
	for _, layer := range m.Layers {
		layers = append(layers, layer.Digest)
	}
	return img.Manifest.Digest, m.Config.Digest, layers
}

func (w *world) save(ref string) ([]byte, error) {
	var out bytes.Buffer
	save, err := w.Save(w.Context(), []string{ref}, nil)
	if err == nil {
		err = save(&out)
	}
	return out.Bytes(), err
}

// Of an image that lost a blob behind the store's back only that is brought again, by a
// pull or by a load, in the same process and in the next.
func TestOnlyWhatIsLostIsBrought(t *testing.T) {
	for name, harm := range map[string]harm{"removed": remove, "cut": cut} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			ref := w.serve("app", imageOf(t, layer(t, "base", 9000), layer(t, "app", 5000)))
			w.pull(ref)
			manifest, config, layers := w.parts(ref)
			archive, err := w.save(ref)
			if err != nil {
				t.Fatal(err)
			}
			w.asked.blobs()
			for _, lost := range []digest.Digest{layers[1], layers[0], config, manifest} {
				for _, again := range []bool{false, true} {
					for how, bring := range map[string]func() error{
						"pull": func() error { return w.Pull(t.Context(), ref, "", nil, quiet) },
						"load": func() error { return w.Load(t.Context(), bytes.NewReader(archive), nil, quiet) },
					} {
						harm(t, w.file(lost))
						if again {
							w.reopen()
						}
						if _, err := w.save(ref); !errdefs.IsNotFound(err) || !errors.As(err, new(*Incomplete)) || !strings.Contains(err.Error(), lost.String()) {
							t.Errorf("saving without %s: %v", lost, err)
						}
						w.usageOnDisk()
						// A collection does not take what else is here of the image.
						w.Recover(t.Context())
						if err := bring(); err != nil {
							t.Fatalf("%s: %v", how, err)
						}
						asked := w.asked.blobs()
						if want := how == "pull" && lost != manifest; want && !slices.Equal(asked, []digest.Digest{lost}) || !want && len(asked) > 0 {
							t.Errorf("%s without %s fetched %v", how, lost, asked)
						}
						w.whole()
						if _, err := w.save(ref); err != nil {
							t.Error(err)
						}
					}
				}
			}
			w.empty()
		})
	}
}

// usageOnDisk proves that Usage tells what is there.
func (w *world) usageOnDisk() {
	w.Helper()
	usage, err := w.Usage(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	if want := w.onDisk(); usage.Total != want {
		w.Errorf("the store says it occupies %d bytes: on disk are %d", usage.Total, want)
	}
}

// A layer that the disk changed is found out when it is unpacked, and is not said to be
// the fault of who made the image.
func TestADamagedLayerIsBroughtAnew(t *testing.T) {
	w := newWorld(t, nil)
	ref := w.serve("app", imageOf(t, layer(t, "base", 9000), layer(t, "app", 5000)))
	w.pull(ref)
	_, _, layers := w.parts(ref)
	img, err := w.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	spoil(t, w.file(layers[0]))
	// It is unpacked, and can be run.
	_, release, err := w.Unpack(t.Context(), img, "first")
	if err != nil {
		t.Fatal(err)
	}
	release()
	if _, _, err := w.Unpack(t.Context(), img, "second"); !errors.As(err, new(*Incomplete)) || !errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) {
		t.Errorf("unpacking a damaged blob: %v", err)
	}
	w.asked.blobs()
	w.pull(ref)
	if asked := w.asked.blobs(); !slices.Equal(asked, layers[:1]) {
		t.Errorf("fetched %v", asked)
	}
	if _, release, err = w.Unpack(t.Context(), img, "second"); err != nil {
		t.Fatal(err)
	}
	release()
	// A pull that finds it out itself brings it, too.
	if err := errors.Join(w.drivers.byName["second"].Remove(t.Context(), chainNames(&img)[1]), w.drivers.byName["first"].Remove(t.Context(), chainNames(&img)[1])); err != nil {
		t.Fatal(err)
	}
	spoil(t, w.file(layers[1]))
	w.pull(ref)
	w.usable(ref)
	w.empty()
}

// Check finds all that is damaged, names who needs it, and removes it so that a pull
// brings it anew.
func TestCheckAndRepair(t *testing.T) {
	w := newWorld(t, nil)
	base := layer(t, "base", 9000)
	one, two := w.serve("one", imageOf(t, base, layer(t, "one", 5000))), w.serve("two", imageOf(t, base))
	w.pull(one)
	w.pull(two)
	list, size := w.blobs()
	found, err := w.Check(t.Context(), false)
	if err != nil || found.Blobs != len(list) || found.Bytes != size || len(found.Damaged) != 0 {
		t.Fatalf("of %d blobs with %d bytes: %+v, %v", len(list), size, found, err)
	}
	manifest, _, layers := w.parts(one)
	spoil(t, w.file(layers[0]))
	cut(t, w.file(layers[1]))
	remove(t, w.file(manifest))
	want := map[digest.Digest]string{layers[0]: "content is not what its digest says", layers[1]: "of its", manifest: "is gone"}
	for _, repair := range []bool{false, true, false} {
		found, err = w.Check(t.Context(), repair)
		if err != nil || len(found.Damaged) != 3 {
			t.Fatalf("%+v, %v", found, err)
		}
		for _, d := range found.Damaged {
			if !strings.Contains(d.Problem, want[d.Digest]) || d.Removed != repair {
				t.Errorf("with repair %v: %+v", repair, d)
			}
			needed := []string{one}
			switch d.Digest {
			case layers[0]: // the manifest that would say so of the other is lost
				needed = []string{two}
			case layers[1]:
				needed = []string{}
			}
			if !slices.Equal(d.Images, needed) {
				t.Errorf("%s is needed by %v, not %v", d.Digest, d.Images, needed)
			}
		}
		if repair {
			want[layers[0]], want[layers[1]] = "is gone", "is gone"
		}
	}
	w.pull(one)
	if found, err = w.Check(t.Context(), true); err != nil || len(found.Damaged) != 0 {
		t.Errorf("%+v, %v", found, err)
	}
	w.usable(one, two)
	w.empty()
}

// An image whose manifest is lost is named in the error, and can be removed.
func TestImagesThatCannotBeReadCanBeRemoved(t *testing.T) {
	w := newWorld(t, nil)
	refs := []string{w.serve("one", imageOf(t, layer(t, "one", 900))), w.serve("two", imageOf(t, layer(t, "two", 900))), w.serve("three", imageOf(t, layer(t, "three", 900)))}
	for i, ref := range refs {
		w.pull(ref)
		manifest, config, _ := w.parts(ref)
		if i == 1 {
			spoil(t, w.file(config))
		} else {
			remove(t, w.file(manifest))
		}
	}
	w.reopen()
	for _, ref := range refs {
		if _, err := w.Resolve(t.Context(), ref); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "image "+ref+" is incomplete: ") || !isLost(err) || !strings.Contains(err.Error(), "pull or load it again") {
			t.Errorf("%v", err)
		}
	}
	report, err := w.Remove(t.Context(), refs[0], false, false, unused)
	if err != nil || len(report) != 1 || report[0].Untagged != refs[0] {
		t.Errorf("%+v, %v", report, err)
	}
	w.pull(refs[1])
	if _, err := w.save(refs[1]); err != nil {
		t.Error(err)
	}
	pruned, err := w.Prune(t.Context(), nil, unused)
	if err != nil || len(pruned.ImagesDeleted) > 0 {
		t.Errorf("without -a: %+v, %v", pruned, err)
	}
	pruned, err = w.Prune(t.Context(), filter.Args{"dangling": {"false"}}, unused)
	if err != nil || !slices.ContainsFunc(pruned.ImagesDeleted, func(d mobyimage.DeleteResponse) bool { return d.Untagged == refs[2] }) {
		t.Errorf("%+v, %v", pruned, err)
	}
	w.nothing()
}

// A snapshot that is gone is made anew from the blobs.
func TestALayerThatIsGoneIsUnpackedAgain(t *testing.T) {
	w := newWorld(t, nil)
	ref := w.serve("app", imageOf(t, layer(t, "base", 900), layer(t, "app", 500)))
	w.pull(ref)
	img, err := w.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	w.asked.blobs()
	names := chainNames(&img)
	for lowest := range names {
		for _, name := range slices.Backward(names[lowest:]) {
			if err := w.drivers.byName["first"].Remove(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.createContainer(ref, "first"); err != nil {
			t.Error(err)
		}
	}
	if asked := w.asked.blobs(); len(asked) > 0 {
		t.Errorf("fetched %v", asked)
	}
}

// chainNames are the names of an image's snapshots, the lowest first.
func chainNames(img *Image) (names []string) {
	for _, id := range identity.ChainIDs(slices.Clone(img.Config.RootFS.DiffIDs)) {
		names = append(names, id.String())
	}
	return names
}
