package input

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// bind makes dir visible at another path until the test ends.
func bind(t *testing.T, dir string) string {
	t.Helper()
	rig.NeedRoot(t)
	to := t.TempDir()
	must(t, unix.Mount(dir, to, "", unix.MS_BIND, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return to
}

func mkdirs(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		must(t, os.MkdirAll(d, 0o755))
	}
}

// TestSecondServer: a volume that is mounted isn't mounted again, by whatever path one comes to its directories.
func TestSecondServer(t *testing.T) {
	t.Parallel()
	v := rig.Mounted(t, volume.Options{})
	in := func(name string) string { return filepath.Join(v.Dir, name) }
	mkdirs(t, in("b"), in("m"))
	must(t, os.Symlink(v.Backing, in("link")), os.Symlink(v.Mount, in("mlink")), os.Symlink(v.StateDir(), in("slink")))
	backing, state, mount := bind(t, v.Backing), bind(t, v.StateDir()), bind(t, v.Dir)
	for _, args := range [][]string{
		{v.Backing, v.Mount}, {v.Backing, in("m")}, {in("link"), in("m")}, {v.Backing + "/.", in("m")},
		{backing, in("m")}, {backing, in("m"), "--state", in("s")}, {v.Backing, in("m"), "--state", in("s")},
		{in("b"), v.Mount}, {in("b"), in("mlink")},
		{in("b"), in("m"), "--state", v.StateDir()}, {in("b"), in("m"), "--state", in("slink")}, {in("b"), in("m"), "--state", state},
		{filepath.Join(mount, "backing"), in("m")},
	} {
		refused(t, v, []string{"mounted at "}, append([]string{"mount"}, args...)...)
	}
	// The mount point's own directory, to which another path leads below the mount.
	refused(t, v, []string{"in use"}, "mount", in("b"), filepath.Join(mount, "mnt"))
	if volume.Mounted(in("m")) || volume.Mounted(filepath.Join(mount, "mnt")) {
		t.Error("a refused mount is there")
	}
	rig.SameFile(t, write(t, v, "file"), []byte("file"))
	if _, err := v.Snapshot(t.Context(), "s"); err != nil {
		t.Error("after refused mounts:", err)
	}
	must(t, v.Umount(t.Context()), v.Start(t.Context()))
}

// write writes a file that holds its own name.
func write(t *testing.T, v *volume.Volume, name string) string {
	t.Helper()
	path := filepath.Join(v.Mount, name)
	must(t, os.WriteFile(path, []byte(name), 0o644))
	return path
}

// TestNestedVolumes: what lies in another volume's backing would change behind that one's back.
func TestNestedVolumes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v := rig.NewVolume(t, volume.Options{Dir: dir, Backing: filepath.Join(dir, "up", "backing")})
	in := func(name string) string { return filepath.Join(dir, name) }
	mkdirs(t, filepath.Join(v.Backing, "sub", "m"), in("b"), in("m"))
	must(t, v.Start(t.Context()))
	backing := bind(t, v.Backing)
	for _, args := range [][]string{
		{filepath.Join(v.Backing, "sub"), in("m")}, {filepath.Join(backing, "sub"), in("m"), "--state", in("s")}, {in("up"), in("m")},
		{in("b"), in("m"), "--state", filepath.Join(v.Backing, "state")}, {in("b"), in("m"), "--state", filepath.Join(backing, "sub", "state")},
		{in("b"), filepath.Join(v.Backing, "sub", "m")}, {in("b"), filepath.Join(backing, "sub", "m")},
	} {
		refused(t, v, []string{"lies inside the backing directory", "mounted at " + v.Mount}, append([]string{"mount"}, args...)...)
	}
	refused(t, v, []string{"lies inside the state directory"}, "mount", filepath.Join(v.StateDir(), "log"), in("m"), "--state", in("s"))
	refused(t, v, []string{"lies inside the state directory"}, "mount", in("b"), in("m"), "--state", filepath.Join(v.StateDir(), "log", "s"))
	// A volume in another one's mount works through that, and so may be.
	inner := rig.NewVolume(t, volume.Options{Dir: t.TempDir(), Backing: filepath.Join(v.Mount, "inner"), State: in("inner.state")})
	must(t, inner.Start(t.Context()))
	write(t, inner, "file")
	if _, err := inner.Snapshot(t.Context(), "s"); err != nil {
		t.Error(err)
	}
	must(t, inner.Umount(t.Context()))
}

// TestNestedInItself: the same of one volume's own directories, also where bind mounts hide it.
func TestNestedInItself(t *testing.T) {
	v := rig.NewVolume(t, volume.Options{})
	mkdirs(t, filepath.Join(v.Backing, "sub"), filepath.Join(v.Mount, "sub"))
	backing, mount := bind(t, v.Backing), bind(t, v.Mount)
	for _, args := range [][]string{
		{v.Backing, v.Mount, "--state", filepath.Join(backing, "state")},
		{v.Backing, v.Mount, "--state", filepath.Join(mount, "state")},
		{v.Backing, filepath.Join(backing, "sub")},
		{filepath.Join(mount, "sub"), v.Mount},
		{v.Backing, filepath.Join(v.Backing, "sub")},
	} {
		refused(t, v, []string{"lies inside"}, append([]string{"mount"}, args...)...)
	}
}

// TestBackingByOtherNames: the state directory lies beside the backing itself, however that is called.
func TestBackingByOtherNames(t *testing.T) {
	t.Parallel()
	v := rig.Mounted(t, volume.Options{})
	if _, err := v.Snapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	must(t, v.Umount(t.Context()))
	link := filepath.Join(v.Dir, "link")
	must(t, os.Symlink(v.Backing, link))
	for _, name := range []string{link, v.Backing + "/", link + "/", v.Backing + "/.", v.Dir + "/../" + filepath.Base(v.Dir) + "/backing"} {
		if _, err := v.Run(t.Context(), "mount", name, v.Mount); err != nil {
			t.Fatal(err)
		}
		if list, err := v.Snapshots(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("mounted as %s: %d snapshots, %v", name, len(list), err)
		}
		must(t, v.Umount(t.Context()))
	}
}

// TestRace starts many mounts at the same moment: one wins, the others say so and leave nothing.
func TestRace(t *testing.T) {
	const racers = 20
	for _, tc := range []struct {
		name                  string
		backing, mount, state string // %d: one for each racer
	}{
		{"the same command", "b", "m", "s"},
		{"over itself", "b", "b", "s"},
		{"the same backing", "b", "m%d", "s%d"},
		{"the same mount point", "b%d", "m", "s%d"},
		{"the same state", "b%d", "m%d", "s"},
	} {
		t.Run(tc.name, func(t *testing.T) { race(t, racers, tc.backing, tc.mount, tc.state) })
	}
}

func race(t *testing.T, racers int, backing, mount, state string) {
	dir := t.TempDir()
	path := func(name string, i int) string {
		if n := fmt.Sprintf(name, i); n != name+fmt.Sprintf("%%!(EXTRA int=%d)", i) {
			name = n
		}
		return filepath.Join(dir, name)
	}
	vols := make([]*volume.Volume, racers)
	errs := make([]error, racers)
	for i := range vols {
		vols[i] = rig.NewVolume(t, volume.Options{Dir: dir, Backing: path(backing, i), Mount: path(mount, i), State: path(state, i)})
	}
	var wg sync.WaitGroup
	for i, v := range vols {
		wg.Go(func() { errs[i] = v.Start(t.Context()) })
	}
	wg.Wait()
	var winner *volume.Volume
	for i, err := range errs {
		if err == nil && winner != nil {
			t.Errorf("%d has won too", i)
		}
		if err == nil {
			winner = vols[i]
			continue
		}
		checkRefused(t, err)
	}
	if winner == nil {
		t.Fatal("nobody has won:", errors.Join(errs...))
	}
	mounts := 0
	for _, m := range volume.Mounts() {
		if rel, err := filepath.Rel(dir, m); err == nil && filepath.IsLocal(rel) {
			mounts++
		}
	}
	if mounts != 1 {
		t.Errorf("%d mounts, want 1", mounts)
	}
	write(t, winner, "file")
	if _, err := winner.Snapshot(t.Context(), "s"); err != nil {
		t.Error(err)
	}
	must(t, winner.Umount(t.Context())) // which needs the holder's own pid file
}

// TestIndexInUse: a command that works on the state of a volume that isn't mounted keeps others out, a mount too.
func TestIndexInUse(t *testing.T) {
	t.Parallel()
	v := rig.Mounted(t, volume.Options{})
	write(t, v, "file")
	if _, err := v.Snapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	must(t, v.Umount(t.Context()))
	f, err := os.OpenFile(filepath.Join(v.StateDir(), "index.db"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX)) // as bbolt does
	for _, args := range [][]string{
		{"mount", v.Backing, v.Mount}, {"snapshots", v.Backing}, {"delete", v.Backing, "s"}, {"prune", v.Backing}, {"verify", v.Backing},
		{"restore", v.Backing, "s", filepath.Join(v.Dir, "dest")},
	} {
		refused(t, v, []string{"another process"}, args...)
	}
	if volume.Mounted(v.Mount) {
		t.Error("a refused mount is there")
	}
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	must(t, v.Start(t.Context()))
}
