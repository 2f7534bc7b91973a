package faults

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestQuota: when the backing's quota is used up the database gets EDQUOT, as on the disk itself; what there is can be snapshotted; and with a
// larger quota it goes on. The quota is a subvolume's of btrfs, which every kernel with btrfs has.
func TestQuota(t *testing.T) {
	for _, cache := range longer("writeback", "through") {
		t.Run(cache, func(t *testing.T) {
			n := seed(t)
			disk := rig.NewDisk(t, "btrfs", small, "")
			limit(t, disk.Dir, "64M")
			s := &subject{t: t, vol: rig.Mounted(t, volume.Options{
				Backing: filepath.Join(disk.Dir, "sub", "backing"), State: filepath.Join(t.TempDir(), "state"), Cache: cache,
			})}
			s.db = newDatabase(t, s.vol.Mount, n)
			defer s.db.close()
			s.right("a")
			big := filepath.Join(s.vol.Mount, "big")
			if err := writeSynced(big, 100<<20); !errors.Is(err, unix.EDQUOT) {
				t.Errorf("writing more than the quota: %v, want EDQUOT", err)
			}
			var err error
			if s.db.files["big"], err = os.ReadFile(filepath.Join(s.vol.Backing, "big")); err != nil {
				t.Error(err)
			}
			s.right("used-up")
			limit(t, disk.Dir, "none")
			s.db.must(os.Remove(big))
			delete(s.db.files, "big")
			s.db.overwrite(10)
			s.right("b")
		})
	}
}

// limit sets the quota of the subvolume "sub" of a btrfs, which it makes first.
func limit(t *testing.T, dir, bytes string) {
	t.Helper()
	sub := filepath.Join(dir, "sub")
	lines := [][]string{{"qgroup", "limit", bytes, sub}}
	if _, err := os.Stat(sub); err != nil {
		lines = append([][]string{{"subvolume", "create", sub}, {"quota", "enable", dir}}, lines...)
	}
	for _, args := range lines {
		if out, err := exec.Command("btrfs", args...).CombinedOutput(); err != nil {
			t.Skipf("no quotas here: btrfs %v: %v: %s", args, err, out)
		}
	}
}
