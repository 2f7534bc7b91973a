package index

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func TestRemotes(t *testing.T) {
	path := testPath(t)
	db := open(t, path)
	if names, err := db.Remotes(); err != nil || len(names) > 0 {
		t.Errorf("remotes of a new index: %v, %v", names, err)
	}
	if rec, err := db.Remote("a"); rec != nil || err != nil {
		t.Errorf("a remote of a new index: %q, %v", rec, err)
	}
	var rows []RemoteObject
	for i := range 300 {
		rows = append(rows, RemoteObject{Name: fmt.Sprintf("packs/%02x/%d.pack", i%7, i), Size: int64(i) << 20, Degraded: i%3 == 0})
		if i%5 == 0 {
			rows[i].Doomed = time.Unix(int64(1e9+i), 0).UTC()
		}
	}
	slices.SortFunc(rows, func(a, b RemoteObject) int { return strings.Compare(a.Name, b.Name) })
	for _, remote := range []string{"a", "ab", "b"} {
		if err := errors.Join(db.PutRemote(remote, []byte("state of "+remote)), db.SetRemoteObjects(remote, rows, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.DropRemote("b"); err != nil {
		t.Fatal(err)
	}
	if err := db.SetRemoteObjects("a", []RemoteObject{{Name: "manifests/x.json", Size: 1}}, []string{rows[0].Name, "never/there"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	if names, err := db.Remotes(); err != nil || !slices.Equal(names, []string{"a", "ab"}) {
		t.Errorf("%v, %v", names, err)
	}
	if rec, err := db.Remote("ab"); string(rec) != "state of ab" || err != nil {
		t.Errorf("%q, %v", rec, err)
	}
	for remote, want := range map[string][]RemoteObject{"a": rows[1:], "ab": rows, "b": nil} {
		if got, err := db.RemoteObjects(remote, "packs/"); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %d objects, want %d: %v", remote, len(got), len(want), err)
		}
	}
	if all, err := db.RemoteObjects("a", ""); err != nil || len(all) != len(rows) || all[0].Name != "manifests/x.json" {
		t.Errorf("all of a: %d, %v", len(all), err)
	}
	for _, bad := range []error{db.PutRemote("", nil), db.PutRemote("a\x00b", nil), db.SetRemoteObjects("a", []RemoteObject{{Size: 1}}, nil)} {
		if bad == nil {
			t.Error("nonsense was entered")
		}
	}
}

// TestRemoteRowsDamaged: a row that was changed, or moved to another name, is noticed.
func TestRemoteRowsDamaged(t *testing.T) {
	row := RemoteObject{Name: "packs/aa/1.pack", Size: 77}
	for what, damage := range map[string]func(b *bbolt.Bucket, k, v []byte) error{
		"value": func(b *bbolt.Bucket, k, v []byte) error { v[2] ^= 1; return b.Put(k, v) },
		"key":   func(b *bbolt.Bucket, k, v []byte) error { k[len(k)-6]++; return b.Put(k, v) },
		"short": func(b *bbolt.Bucket, k, v []byte) error { return b.Put(k, v[:3]) },
	} {
		t.Run(what, func(t *testing.T) {
			db, err := Open(testPath(t), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := db.SetRemoteObjects("r", []RemoteObject{row}, nil); err != nil {
				t.Fatal(err)
			}
			err = db.update("test", func(tx *bbolt.Tx) error {
				key := remoteKey("r", row.Name)
				b := tx.Bucket([]byte(bucketRemotes))
				return damage(b, slices.Clone(key), slices.Clone(b.Get(key)))
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.RemoteObjects("r", ""); !errors.Is(err, ErrCorrupt) {
				t.Errorf("read: %v", err)
			}
			if err := db.Check(t.Context()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("check: %v", err)
			}
		})
	}
}

func TestPackIDs(t *testing.T) {
	db := open(t, testPath(t))
	chunks := located(1, 1500)
	if err := db.Relocate(chunks, nil); err != nil {
		t.Fatal(err)
	}
	ids, err := db.PackIDs()
	if err != nil || len(ids) != 3 {
		t.Fatalf("%v, %v", ids, err)
	}
	for _, c := range chunks {
		if !slices.Contains(ids, c.Pack) {
			t.Fatalf("%v lacks %v", ids, c.Pack)
		}
	}
}
