package rig_test

import (
	"os"
	"path/filepath"
	"testing"

	"graphvol/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// TestCutPower: what was synced is there after a power cut, what was only written is not.
func TestCutPower(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			d := rig.NewDisk(t, fstype, 400<<20, "")
			synced, written := filepath.Join(d.Dir, "synced"), filepath.Join(d.Dir, "written")
			f, err := os.Create(synced)
			if err != nil {
				t.Fatal(err)
			}
			want := rig.RandomBytes(100_000)
			if _, err := f.Write(want); err != nil {
				t.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			f.Close()
			rig.WriteFile(t, written, 100_000)
			for _, step := range []func() error{d.CutPower, d.Unmount, d.Mount} {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			rig.SameFile(t, synced, want)
			if info, err := os.Stat(written); err == nil && info.Size() == 100_000 {
				t.Error("the disk still has what was never synced: its power wasn't cut")
			}
		})
	}
}
