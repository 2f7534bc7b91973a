package faults

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"graphvol/integration/rig"
)

const (
	pageSize  = 4096
	dataPages = 1100 // more than the 4 MiB from which a file has fingerprints
)

// database writes to a volume as a database does, and knows what must be in its files. An error of a call fails the test: a
// state directory in trouble is no trouble of the database.
type database struct {
	t     testing.TB
	dir   string
	rnd   *rand.Rand
	data  *os.File
	files map[string][]byte
	next  int
}

func newDatabase(t testing.TB, dir string, seed uint64) *database {
	t.Helper()
	db := &database{t: t, dir: dir, rnd: rand.New(rand.NewPCG(seed, 1)), files: map[string][]byte{}}
	if err := os.Mkdir(filepath.Join(dir, "log"), 0o755); err != nil {
		t.Fatal(err)
	}
	db.files["data"] = rig.WriteFile(t, filepath.Join(dir, "data"), dataPages*pageSize)
	db.open()
	return db
}

func (db *database) must(err error) {
	db.t.Helper()
	if err != nil {
		db.t.Errorf("the database got an error: %v", err)
	}
}

func (db *database) open() {
	var err error
	db.data, err = os.OpenFile(filepath.Join(db.dir, "data"), os.O_RDWR, 0)
	db.must(err)
}

func (db *database) close() { db.must(db.data.Close()) }

// overwrite changes some pages of the data, synced.
func (db *database) overwrite(pages int) {
	db.t.Helper()
	for range pages {
		off := db.rnd.IntN(dataPages) * pageSize
		page := rig.RandomBytes(pageSize)
		copy(db.files["data"][off:], page)
		_, err := db.data.WriteAt(page, int64(off))
		db.must(err)
	}
	db.must(db.data.Sync())
}

// add makes a file, synced, with its directory.
func (db *database) add() string {
	db.t.Helper()
	db.next++
	name := fmt.Sprintf("log/%06d", db.next)
	content := rig.RandomBytes(1 + db.rnd.IntN(3*pageSize))
	f, err := os.Create(filepath.Join(db.dir, name))
	if err != nil {
		db.must(err)
		return name
	}
	_, err = f.Write(content)
	db.must(err)
	db.must(f.Sync())
	db.must(f.Close())
	db.files[name] = content
	dir, err := os.Open(filepath.Join(db.dir, "log"))
	if err != nil {
		db.must(err)
		return name
	}
	db.must(dir.Sync())
	db.must(dir.Close())
	return name
}

// rename moves a file, cuts one and removes two, of those that add made, which are more than enough then.
func (db *database) rename() {
	db.t.Helper()
	logs := slices.Sorted(maps.Keys(db.files))[1:] // "data" comes first
	if len(logs) < 6 {
		return
	}
	from, gone := logs[0], logs[3]
	db.next++
	to := fmt.Sprintf("log/%06d.old", db.next)
	db.must(os.Rename(filepath.Join(db.dir, from), filepath.Join(db.dir, to)))
	db.must(os.Remove(filepath.Join(db.dir, gone)))
	db.files[to] = db.files[from]
	delete(db.files, from)
	delete(db.files, gone)
	db.must(os.Remove(filepath.Join(db.dir, logs[4])))
	delete(db.files, logs[4])
	cut := logs[2]
	db.must(os.Truncate(filepath.Join(db.dir, cut), int64(len(db.files[cut])/2)))
	db.files[cut] = db.files[cut][:len(db.files[cut])/2]
}

// now is what is in the files.
func (db *database) now() map[string][]byte {
	all := maps.Clone(db.files)
	all["data"] = bytes.Clone(all["data"])
	return all
}

// compare tells how a directory differs from what should be in it.
func compare(dir string, want map[string][]byte) error {
	seen := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		w, ok := want[rel]
		if !ok {
			return fmt.Errorf("%s should not be there", rel)
		}
		seen++
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, w) {
			return fmt.Errorf("%s: has %d bytes, want %d; the first difference is at %d", rel, len(got), len(w), differAt(got, w))
		}
		return nil
	})
	if err == nil && seen != len(want) {
		err = fmt.Errorf("%d files, want %d", seen, len(want))
	}
	return err
}

func differAt(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
