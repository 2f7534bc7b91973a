package soak

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

const readFileBytes = 600_000 // more than the kernel reads at once with the small reads below

// TestDeletedWhileOpen: snapshots are deleted while a file and a directory of them are open. Who reads on gets the right bytes or ESTALE, and when
// all is closed nothing is left of them.
func TestDeletedWhileOpen(t *testing.T) {
	t.Parallel() // it waits for the disk more than it works
	v := rig.Mounted(t, volume.Options{})
	var early, late Measure
	for n := range 12 {
		want := rig.WriteFile(t, filepath.Join(v.Mount, "file"), readFileBytes)
		name := fmt.Sprintf("s%d", n)
		_, err := v.Snapshot(t.Context(), name)
		must(t, err)
		f, err := os.Open(filepath.Join(v.SnapshotDir(name), "file"))
		must(t, err)
		dir, err := os.Open(v.SnapshotDir(name))
		must(t, err)
		first := make([]byte, 1000)
		_, err = io.ReadFull(f, first)
		must(t, err)

		rig.WriteFile(t, filepath.Join(v.Mount, "file"), readFileBytes) // so that a read can't come from the live file
		_, err = v.Run(t.Context(), "delete", v.Mount, name)
		must(t, err)
		rest, err := io.ReadAll(f)
		if err != nil && !errors.Is(err, unix.ESTALE) || err == nil && len(first)+len(rest) != len(want) || !bytes.HasPrefix(want, append(first, rest...)) {
			t.Errorf("reading on in a deleted snapshot: %d bytes, %v", len(first)+len(rest), err)
		}
		if _, err := dir.Readdirnames(-1); err != nil && !errors.Is(err, unix.ESTALE) {
			t.Errorf("listing a directory of a deleted snapshot: %v", err)
		}
		must(t, errors.Join(f.Close(), dir.Close()))
		if _, err := os.Stat(v.SnapshotDir(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a deleted snapshot: %v", err)
		}
		_, err = v.Run(t.Context(), "prune", v.Mount)
		must(t, err)
		late, err = Settled(t.Context(), v, early)
		must(t, err)
		if n == 1 {
			early = late
		}
	}
	t.Logf("%s", late)
	flat(t, early, late, 0)
	if packs := late.Disk["store/packs"]; packs.Files != 0 {
		t.Errorf("no snapshot is left, and packs are: %+v", packs)
	}
}
