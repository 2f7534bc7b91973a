package remote

import (
	"slices"
	"testing"

	"graphvol/chunkstore/target"
	"graphvol/snapshot"
)

func TestClustersManifestsAreCopied(t *testing.T) {
	f, copied := newFixture(t), copyDir(t)
	f.snapshot()
	local := f.config(copied).Local.Target
	put := func(id, content string) {
		t.Helper()
		f.must(target.Put(t.Context(), local, snapshot.ClusterObject(id), []byte(content)))
	}
	r := New(f.config(copied))
	sync := func(want ...string) {
		t.Helper()
		_, err := r.Sync(t.Context(), Options{})
		f.must(err)
		list, err := copied.List(t.Context(), snapshot.ClusterPrefix)
		f.must(err)
		var got []string
		for _, in := range list {
			got = append(got, in.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the copy has %v, want %v", got, want)
		}
	}
	sync()
	put("a", `{"a":1}`)
	put("b", `{"b":1}`)
	sync("clusters/a.json", "clusters/b.json")
	f.must(local.Remove(t.Context(), "clusters/a.json"))
	sync("clusters/b.json")
	r = New(f.config(copied)) // another process
	put("c", `{"c":1}`)
	sync("clusters/b.json", "clusters/c.json")

	// A scrub finds one that was changed, and mends it.
	f.must(target.Put(t.Context(), copied, "clusters/b.json", []byte(`{"b":2}`)))
	for _, want := range []int{1, 0} {
		res, err := r.Scrub(t.Context(), ScrubOptions{Mend: true})
		f.must(err)
		if res.Damaged != want || res.Mended != want {
			t.Errorf("scrub: %+v, want %d damaged and mended", res, want)
		}
	}

	// A copy that is attached has them.
	v, err := OpenView(t.Context(), copied)
	f.must(err)
	there, err := target.OpenDir(t.TempDir())
	f.must(err)
	f.must(v.CopyClusters(t.Context(), there))
	for id, want := range map[string]string{"b": `{"b":1}`, "c": `{"c":1}`} {
		p, err := target.Get(t.Context(), there, snapshot.ClusterObject(id), 1<<10)
		if err != nil || string(p) != want {
			t.Errorf("%s: %q, %v", id, p, err)
		}
	}
}
