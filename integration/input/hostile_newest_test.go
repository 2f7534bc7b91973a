package input

import (
	"os"
	"path/filepath"
	"testing"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestHostileNewest: the newest snapshot is what a mount compares the volume with, and what the next one follows. If it is a forged one,
// the volume mounts, and the next snapshot is right all the same.
func TestHostileNewest(t *testing.T) {
	dir := t.TempDir()
	h := &hostile{Volume: rig.Mounted(t, volume.Options{Dir: dir}), outside: filepath.Join(dir, "outside")}
	mkdirs(t, h.outside, filepath.Join(h.Mount, "dir"))
	rig.WriteFile(t, filepath.Join(h.Mount, "data"), 1<<20)
	snapshotIs(t, h.Volume, "honest")
	for _, tree := range hostileTrees() {
		if !tree.endless {
			t.Run(tree.name, func(t *testing.T) { h.in(t).newest(tree) })
		}
	}
	for _, name := range []string{"honest", "after-circles", "second-xattrs"} {
		h.in(t).run("verify", h.Mount, name, "--read-data").check(t, false)
	}
}

func (h *hostile) newest(tree hostileTree) {
	must(h.t, h.Umount(h.t.Context()))
	f := newForger(h.t, h.StateDir())
	s := f.begin()
	tree.make(s, h.outside)
	s.end(tree.name)
	f.finish()
	h.run("rebuild", h.Backing).check(h.t, false)
	must(h.t, os.WriteFile(filepath.Join(h.Backing, "changed"), []byte(tree.name), 0o600), h.Start(h.t.Context()))
	rig.WriteFile(h.t, filepath.Join(h.Mount, "dir", "file"), 10_000)
	h.run("dirty", h.Mount)
	// The next one is a full one, and the one after that goes on from there.
	snapshotIs(h.t, h.Volume, "after-"+tree.name)
	rig.WriteFile(h.t, filepath.Join(h.Mount, "dir", "file"), 20_000)
	snapshotIs(h.t, h.Volume, "second-"+tree.name)
}
