package soak

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

var failures = flag.Int("soak.failures", 30, "snapshots that fail in TestFailedSnapshots")

// TestFailedSnapshots: nothing can be stored for long, and somebody tries again and again. What the server keeps of each try is bounded, but for
// its row in the catalogue; and the first snapshot that succeeds has all.
func TestFailedSnapshots(t *testing.T) {
	t.Parallel() // it waits for the disk more than it works
	v := rig.Mounted(t, volume.Options{})
	path := func(name string) string { return filepath.Join(v.Mount, name) }
	want := rig.WriteFile(t, path("file"), 100*4096)
	_, err := v.Snapshot(t.Context(), "before")
	must(t, err)
	uploads := filepath.Join(v.StateDir(), "store", ".tmp")
	must(t, os.Rename(uploads, uploads+".away"))
	must(t, os.WriteFile(uploads, nil, 0o600)) // a file where a directory belongs

	for n := range *failures {
		f, err := os.OpenFile(path("file"), os.O_RDWR, 0)
		must(t, err)
		block := rig.RandomBytes(4096)
		_, err = f.WriteAt(block, int64(n%100)*4096)
		must(t, err)
		must(t, f.Close())
		copy(want[n%100*4096:], block)
		must(t, os.WriteFile(path(fmt.Sprintf("made%d", n)), block, 0o644))
		if n > 0 {
			must(t, os.Remove(path(fmt.Sprintf("made%d", n-1))))
		}
		if _, err := v.Snapshot(t.Context(), fmt.Sprintf("failed%d", n)); err == nil {
			t.Fatal("a snapshot succeeds though nothing can be stored")
		}
	}
	const most = 10 // dirty maps: those that aren't merged yet, the merged one and the running epoch's
	n := mappedEpochs(t, v)
	for tries := 0; n > 2*most && tries < 200; tries++ { // until the garbage collector has seen that the others aren't needed
		_, err = v.Run(t.Context(), "verify", v.Mount, "--read-data")
		must(t, err)
		n = mappedEpochs(t, v)
	}
	if n > 2*most {
		t.Errorf("files of epochs are mapped %d times", n)
	}

	must(t, os.Remove(uploads))
	must(t, os.Rename(uploads+".away", uploads))
	_, err = v.Snapshot(t.Context(), "after")
	must(t, err)
	rig.SameFile(t, filepath.Join(v.SnapshotDir("after"), "file"), want)
	list, err := os.ReadDir(v.SnapshotDir("after"))
	if err != nil || len(list) != 2 || list[1].Name() != fmt.Sprintf("made%d", *failures-1) {
		t.Errorf("the snapshot lists %v (%v)", list, err)
	}
	_, err = v.Run(t.Context(), "verify", v.Mount, "--read-data")
	must(t, err)
}

// mappedEpochs counts the mappings of epochs' files in the server, removed ones too: these keep their space on the disk.
func mappedEpochs(t *testing.T, v *volume.Volume) int {
	t.Helper()
	st, err := v.Status(t.Context())
	must(t, err)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", st.ServerPID))
	must(t, err)
	n := 0
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "/epochs/") {
			n++
		}
	}
	return n
}
