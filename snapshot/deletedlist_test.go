package snapshot

import (
	"encoding/json"
	"errors"
	"maps"
	"testing"

	"graphvol/index"
)

// FuzzDecodeDeleted: the list of deleted snapshots is read as it was written, or it is damage.
func FuzzDecodeDeleted(f *testing.F) {
	whole, err := json.Marshal(deletions{Manifests: map[string]string{"06gkx0tt": hashHex(nil), "": ""}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(whole), "", "null", "{}", `{"manifests":null}`, `{"manifests":{"a":"b"}`, `{"manifests":{"a":1}}`, "[]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		list, err := decodeDeleted(p)
		if err != nil {
			if !errors.Is(err, index.ErrCorrupt) {
				t.Errorf("%v, want damage", err)
			}
			return
		}
		q, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeDeleted(q); err != nil || !maps.Equal(again.Manifests, list.Manifests) {
			t.Errorf("%v was read as %v, %v", list, again, err)
		}
	})
}
