package index

import "testing"

// What the dirty maps are relative to isn't forgotten with the snapshot.
func TestSealedEpoch(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	is := func(want uint64) {
		t.Helper()
		if n, err := db.SealedEpoch(); err != nil || n != want {
			t.Errorf("sealed epoch %d, want %d: %v", n, want, err)
		}
	}
	is(0)
	var ids []string
	for epoch := range uint64(3) {
		s := pending(t, db, "")
		s.Epoch = epoch + 1
		is(epoch)
		if err := db.Complete(Commit{Snapshot: s}); err != nil {
			t.Fatal(err)
		}
		is(epoch + 1)
		ids = append(ids, s.ID)
	}
	for _, id := range []string{ids[0], ids[2], ids[1]} {
		if err := db.Remove(id); err != nil {
			t.Fatal(err)
		}
		is(3)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	is(3)
}
