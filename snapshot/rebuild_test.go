package snapshot

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"graphvol/index"
)

// rebuilt replaces the index of a closed repository by a new one; keepOld: with what the old one knows.
func rebuilt(t *testing.T, state string, keepOld bool, opts RebuildOptions) Rebuilt {
	t.Helper()
	cfg := Config{State: state}
	if keepOld {
		old, err := ReadOldCatalogue(cfg)
		if err != nil {
			t.Fatal(err)
		}
		opts.Old = old
	}
	path := filepath.Join(state, "new.db")
	res, err := Rebuild(t.Context(), cfg, path, opts)
	if err == nil {
		err = errors.Join(os.Rename(path, filepath.Join(state, IndexName)), os.Remove(index.IntentPath(path)), SetAside(t.Context(), cfg, res.Aside))
	}
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestRebuild loses the index of a repository with deleted, failed and pruned snapshots: what the new one has is whole, in order and of the
// same volume.
func TestRebuild(t *testing.T) {
	for _, keepOld := range []bool{false, true} {
		state := t.TempDir()
		r := openRepo(t, state)
		h := newHistory(t, r, rand.Uint64(), 5)
		failed, err := r.Begin("fails", BeginOptions{})
		if err == nil {
			err = r.Abandon(failed, errors.New("on purpose"))
		}
		if err == nil {
			err = r.Delete(t.Context(), []index.Snapshot{h.snaps[1], h.snaps[2]})
		}
		if err != nil {
			t.Fatal(err)
		}
		prune(t, r)
		volume := r.VolumeID()
		closeRepo(t, r)
		if !keepOld {
			if err := os.Remove(filepath.Join(state, IndexName)); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), Config{State: state}); !errors.Is(err, ErrIndexLost) {
				t.Errorf("opened without an index: %v", err)
			}
		}
		res := rebuilt(t, state, keepOld, RebuildOptions{ReadData: true})
		if res.Snapshots != 3 || len(res.Problems) > 0 {
			t.Errorf("rebuilt: %+v", res)
		}
		if want := []string{h.snaps[2].ID}; !keepOld && !slices.Equal(res.Deleted, want) {
			t.Errorf("taken for deleted: %v, want %v", res.Deleted, want)
		}
		r = openRepo(t, state)
		if r.VolumeID() != volume {
			t.Errorf("the volume is now %s", r.VolumeID())
		}
		all, err := r.Snapshots()
		if err != nil || keepOld != slices.ContainsFunc(all, func(s index.Snapshot) bool { return s.State == index.StateFailed }) {
			t.Errorf("the failed snapshot: %+v, %v", all, err)
		}
		h.check(t, r)
		h.seal(t, r, true)
		h.check(t, r)
		closeRepo(t, r)
	}
}

// TestRebuildFlippedVersion: a manifest whose version was damaged isn't a newer program's, if anything tells what it was. A newer one ends the rebuild.
func TestRebuildFlippedVersion(t *testing.T) {
	for _, c := range []struct {
		keepOld, newest, refused bool
		left                     int64
	}{
		{keepOld: true, newest: true, left: 3}, {keepOld: true, left: 3}, {left: 2}, {newest: true, refused: true},
	} {
		state := t.TempDir()
		r := openRepo(t, state)
		h := newHistory(t, r, rand.Uint64(), 3)
		closeRepo(t, r)
		id := h.snaps[1].ID
		if c.newest {
			id = h.snaps[len(h.snaps)-1].ID
		}
		path := filepath.Join(state, "store", ManifestObject(id))
		p, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, bytes.Replace(p, []byte(`"format_version": 1`), []byte(`"format_version": 9`), 1), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if c.refused {
			if _, err := Rebuild(t.Context(), Config{State: state}, filepath.Join(state, "new.db"), RebuildOptions{}); !errors.Is(err, ErrNewerFormat) {
				t.Errorf("%+v: %v, want ErrNewerFormat", c, err)
			}
			continue
		}
		if res := rebuilt(t, state, c.keepOld, RebuildOptions{}); res.Snapshots != c.left || len(res.Problems) == 0 {
			t.Errorf("%+v: %+v", c, res)
		}
	}
}

func TestRebuildOrder(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	in := []index.Snapshot{
		{ID: "d", Parent: "c", Created: at(4)},
		{ID: "c", Parent: "b", Created: at(1)}, // the clock had been set back
		{ID: "b", Parent: "a", Created: at(3)},
		{ID: "a", Parent: "gone", Created: at(2)},
		{ID: "x", Created: at(9)},
		{ID: "y", Parent: "z", Created: at(5)}, {ID: "z", Parent: "y", Created: at(6)}, // forged
	}
	var got string
	for _, s := range inOrder(in) {
		got += s.ID
	}
	if got != "abcdzyx" {
		t.Errorf("order %s", got)
	}
}

// TestRebuildNames: of manifests with one name, the newest is the snapshot's: the others are left over from snapshots that failed, or were deleted.
func TestRebuildNames(t *testing.T) {
	b := &rebuilder{}
	out := b.oneName([]index.Snapshot{
		{ID: "1", Name: "x", State: index.StateComplete}, {ID: "2", Name: "y", State: index.StateComplete},
		{ID: "3", Name: "x", State: index.StateComplete}, {ID: "4", Name: "x", State: index.StateFailed},
	})
	if len(out) != 3 || out[0].ID != "2" || out[1].ID != "3" || !slices.Equal(b.res.Aside, []string{"1"}) || len(b.res.Problems) != 1 {
		t.Errorf("%+v, %+v", out, b.res)
	}
}
