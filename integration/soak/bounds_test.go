package soak

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"graphvol/index"
	"graphvol/integration/volume"
)

const (
	mib = 1 << 20
	// caches is what the server's caches of chunks, of decoded nodes and of verified records hold when they are full. They are
	// bounded, and a volume this small fills them only after thousands of snapshots.
	caches = 136 * mib
	// maxOpenPacks is how many packs the store keeps open, and maxPacks how many small ones a prune leaves: 16 of a tier.
	maxOpenPacks, maxPacks = 128, 7 * 16
	maxLogs                = 3 * 5 * 8 * mib // agent.log, holder.log, offline.log
)

// flat fails if a volume takes more than it took early on.
func flat(t *testing.T, early, late Measure, snapshots int64) {
	t.Helper()
	atMost := func(what string, got, limit int64) {
		t.Helper()
		if got > limit {
			t.Errorf("%s: %d, early it was not more than %d\nearly %s\nlate  %s", what, got, limit, early, late)
		}
	}
	atMost("goroutines", late.Goroutines, early.Goroutines+slack)
	atMost("open files", late.OpenFiles, early.OpenFiles+slack)
	atMost("open packs", late.OpenPacks, maxOpenPacks)
	atMost("bytes of heap", late.Heap, max(early.Heap, caches)+24*mib)
	atMost("resident bytes", late.Resident, max(early.Resident, 2*caches)+32*mib)
	atMost("holder's open files", late.HolderFiles, early.HolderFiles)
	atMost("holder's resident bytes", late.HolderResident, early.HolderResident+4*mib)

	disk := func(part string, files, bytes int64) {
		t.Helper()
		atMost("files in "+part, late.Disk[part].Files, files)
		atMost("bytes in "+part, late.Disk[part].Bytes, bytes)
	}
	// bbolt's file never shrinks, and keeps what its largest transaction needed.
	disk("index.db", 1, 2*early.Disk["index.db"].Bytes+mib/4)
	disk("index.intents", 1, early.Disk["index.intents"].Bytes+mib/4)
	disk("epochs", early.Disk["epochs"].Files, early.Disk["epochs"].Bytes)
	disk("markers", early.Disk["markers"].Files, early.Disk["markers"].Bytes)
	disk("nodes", 4, 16*mib) // segments of 4 MiB; with four of them, those that are mostly dead go
	disk("preimages", 0, 0)
	disk("fingerprints", early.Disk["fingerprints"].Files, early.Disk["fingerprints"].Bytes)
	disk("log", 3*5+1, maxLogs)
	disk("store/packs", maxPacks, 5*dataBytes)
	disk("store/manifests", snapshots, snapshots*8192)
	disk("store/.tmp", 0, 0)
}

// checkIndex looks at what the index of a volume that isn't mounted has kept of snapshots that are gone.
func checkIndex(t *testing.T, v *volume.Volume, snapshots int) {
	t.Helper()
	db, err := index.Open(filepath.Join(v.StateDir(), "index.db"), index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all, err := db.Snapshots()
	if err != nil || len(all) != snapshots {
		t.Errorf("%d snapshots (%v), want %d", len(all), err, snapshots)
	}
	if epochs, err := db.Epochs(); err != nil || len(epochs) > 1 {
		t.Errorf("dirty maps of epochs %v (%v)", epochs, err)
	}
	raw, err := db.Meta("snapshot/deleted")
	if err != nil {
		t.Fatal(err)
	}
	var gone struct {
		Manifests map[string]string `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &gone); err != nil || len(gone.Manifests) > 2*snapshots {
		t.Errorf("%d deleted snapshots are remembered (%v)", len(gone.Manifests), err)
	}
	t.Logf("%d deleted snapshots are remembered", len(gone.Manifests))
}
