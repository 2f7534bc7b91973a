package input

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// subject is a volume that is changed behind its back.
type subject struct {
	*volume.Volume
	t     *testing.T
	rng   *rand.Rand
	taken map[string]map[string]entry // what each snapshot must be
	log   []string
}

func newSubject(t *testing.T, rng *rand.Rand, o volume.Options) *subject {
	t.Helper()
	o.Cache = []string{"writeback", "through"}[rng.IntN(2)]
	s := &subject{Volume: rig.Mounted(t, o), t: t, rng: rng, taken: map[string]map[string]entry{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.log)
		}
	})
	s.change(s.Mount, 60)
	s.snapshot()
	return s
}

// change makes n changes below dir: the mount, or the backing.
func (s *subject) change(dir string, n int) (reused int) {
	s.t.Helper()
	c := newChanger(dir, s.rng)
	err := c.run(n)
	s.log = append(s.log, c.history())
	must(s.t, err)
	return c.reused
}

// snapshot takes a snapshot, and compares it, and those before it, with what they must be: the backing, and what they were.
func (s *subject) snapshot() {
	s.t.Helper()
	name := fmt.Sprintf("s%d", len(s.taken))
	if _, err := s.Snapshot(s.t.Context(), name); err != nil {
		s.t.Fatal(err)
	}
	want, err := describe(s.Backing)
	must(s.t, err)
	s.taken[name] = want
	s.log = append(s.log, "snapshot "+name)
	for name, want := range s.taken {
		got, err := describe(s.SnapshotDir(name))
		if err = errors.Join(err, compare(got, want)); err != nil {
			s.t.Fatalf("snapshot %s: %v", name, err)
		}
	}
}

// stop unmounts, or kills server and holder.
func (s *subject) stop(kill bool) {
	s.t.Helper()
	s.log = append(s.log, fmt.Sprintf("stop, kill: %v", kill))
	if kill {
		must(s.t, s.KillAll(s.t.Context()))
		return
	}
	must(s.t, s.Umount(s.t.Context()))
}

// awaitScan returns when the volume knows what was changed behind its back.
func (s *subject) awaitScan() {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		out, err := s.Run(s.t.Context(), "status", s.Mount, "--json")
		must(s.t, err)
		var doc struct{ Volumes []struct{ Scanning bool } }
		must(s.t, json.Unmarshal([]byte(out), &doc))
		if len(doc.Volumes) == 1 && !doc.Volumes[0].Scanning {
			return
		}
		if time.Now().After(end) {
			s.t.Fatal("it scans for ever: ", out)
		}
	}
}

// TestCameAndWent: what was made through the mount and removed behind its back is nowhere: not in the snapshot, not in what dirty lists.
// What was in the snapshot is listed, also when its inode number is another's now.
func TestCameAndWent(t *testing.T) {
	t.Parallel()
	disk := rig.NewDisk(t, "ext4", 16<<20, "")
	s := newSubject(t, rand.New(rand.NewPCG(seed(t), 0)), volume.Options{
		Backing: filepath.Join(disk.Dir, "backing"), State: filepath.Join(t.TempDir(), "state"),
	})
	at := func(name string) string { return filepath.Join(s.Mount, name) }
	must(t, os.WriteFile(at("old"), nil, 0o600))
	s.snapshot()
	must(t, os.MkdirAll(at("dir/sub"), 0o755), os.WriteFile(at("dir/file"), []byte("content"), 0o600), s.Umount(t.Context()))
	at = func(name string) string { return filepath.Join(s.Backing, name) }
	was := inode(t, at("old"))
	must(t, os.Remove(at("old")), os.Symlink("old", at("new")), os.RemoveAll(at("dir")))
	if is := inode(t, at("new")); was != is {
		t.Logf("ext4 gave the number %d, not %d again", is, was)
	}
	must(t, s.Start(t.Context()))
	s.awaitScan()
	out, err := s.Run(t.Context(), "dirty", s.Mount)
	lines := strings.Split(strings.ReplaceAll(out, "       ", ""), "\n")
	slices.Sort(lines)
	if want := []string{"", "0 B  .", "0 B  in 3 files", "0 B  new", "0 B  old (removed)"}; err != nil || !slices.Equal(lines, want) {
		t.Errorf("dirty: %v\n%q, want %q", err, lines, want)
	}
	s.snapshot()
	must(t, s.Umount(t.Context()))
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Ino
}

// TestChangedBehindItsBack: the next snapshot is right, whatever was changed while the volume wasn't mounted, with all times put back.
func TestChangedBehindItsBack(t *testing.T) {
	t.Parallel()
	n := seed(t)
	reused := 0
	for run := range *runs {
		for variant := range 4 {
			s := newSubject(t, rand.New(rand.NewPCG(n+uint64(run), uint64(variant))), volume.Options{})
			kill, wait := variant&1 != 0, variant&2 != 0
			for range 3 {
				reused += s.behind(kill, wait)
			}
			must(t, s.Umount(t.Context()))
		}
	}
	if rig.IsExt4(t.TempDir()) && reused == 0 {
		t.Error("no inode number was used again")
	}
}

func (s *subject) behind(kill, wait bool) (reused int) {
	if s.rng.IntN(2) == 0 {
		s.change(s.Mount, 20) // what is carried over
	}
	s.stop(kill)
	reused = s.change(s.Backing, 1+s.rng.IntN(60))
	must(s.t, s.Start(s.t.Context()))
	switch {
	case wait:
		s.awaitScan()
	case s.rng.IntN(2) == 0:
		s.change(s.Mount, 20) // beside the scan
	}
	s.snapshot()
	return reused
}

// TestBackingReplaced: another tree comes into the backing's place.
func TestBackingReplaced(t *testing.T) {
	t.Parallel()
	n := seed(t)
	for fstype, size := range map[string]int64{"ext4": 64 << 20, "xfs": 320 << 20} {
		t.Run(fstype, func(t *testing.T) {
			r := &replacing{disk: rig.NewDisk(t, fstype, size, ""), older: filepath.Join(t.TempDir(), "image")}
			r.subject = newSubject(t, rand.New(rand.NewPCG(n, uint64(size))), volume.Options{
				Backing: filepath.Join(r.disk.Dir, "backing"), State: filepath.Join(t.TempDir(), "state"),
			})
			r.byCopy()
			r.byAnotherDisk(fstype, size)
			r.byImage()
			r.byOlderImage()
			must(t, r.Umount(t.Context()))
		})
	}
}

// replacing is a volume whose backing lies on a disk of its own.
type replacing struct {
	*subject
	disk  *rig.Disk
	older string // an image of the disk
}

// unmounted runs fn while the volume isn't mounted, and takes a snapshot.
func (r *replacing) unmounted(what string, fn func() error) {
	r.t.Helper()
	r.log = append(r.log, what)
	r.stop(r.rng.IntN(2) == 0)
	must(r.t, fn(), r.Start(r.t.Context()))
	r.snapshot()
	r.change(r.Mount, 20)
	r.snapshot()
}

// put makes an image the disk's.
func (r *replacing) put(image string) error {
	return errors.Join(r.disk.Unmount(), command("cp", "--sparse=always", image, r.disk.Image()), r.disk.Mount())
}

func (r *replacing) byCopy() {
	r.unmounted("restored from a copy: all inodes are new", func() error {
		return errors.Join(command("cp", "-a", r.Backing, r.Backing+".new"), os.RemoveAll(r.Backing), os.Rename(r.Backing+".new", r.Backing))
	})
}

func (r *replacing) byAnotherDisk(fstype string, size int64) {
	r.unmounted("on another disk: a file's inode number is that of another one, or by chance the same", func() error {
		other := rig.NewDisk(r.t, fstype, size, "")
		return errors.Join(command("cp", "-a", r.Backing, other.Dir), other.Unmount(), r.put(other.Image()))
	})
}

func (r *replacing) byImage() {
	r.unmounted("a copy of the disk: nothing has changed", func() error {
		return errors.Join(r.disk.Unmount(), command("cp", "--sparse=always", r.disk.Image(), r.older), r.disk.Mount(), r.put(r.older))
	})
}

func (r *replacing) byOlderImage() {
	r.change(r.Mount, 50)
	r.snapshot()
	r.unmounted("the disk as it was before", func() error { return r.put(r.older) })
	r.change(r.Mount, 50)
	r.unmounted("as it was before, and then changed", func() error {
		err := r.put(r.older)
		r.change(r.Backing, 20)
		return err
	})
}
