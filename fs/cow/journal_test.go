package cow

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// FuzzJournal: whatever a server left in the journal, the next one reads it, and goes on to a file that reads the same.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"Request":4,"Op":"exchange","A":5,"B":6}` + "\n" + `{"Request":4,"Done":true}` + "\n"))
	f.Add([]byte(`{"Request":2,"Op":"shift","A":7,"Size":4096}` + "\n" + `{"Request":6,"Op":"whiteout","A":1,"B":18446744073709551615}` + "\n" + `{"Requ`))
	f.Add([]byte("{}\n\nnull\n[1]\n" + `{"Request":-1}` + "\n" + `{"Request":1,"Op":"other","Size":1e400}`))
	path := filepath.Join(f.TempDir(), "journal")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		first := reopened(t, path)
		if again := reopened(t, path); len(b) < journalKeep && !maps.Equal(first, again) {
			t.Errorf("%q: read as %v, and after that as %v", b, first, again)
		}
	})
}

func reopened(t *testing.T, path string) map[uint64]entry {
	t.Helper()
	j, err := openJournal(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	return j.left
}
