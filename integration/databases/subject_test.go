package databases

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"graphvol/integration/volume"
)

var (
	withDatabases = flag.Bool("databases", false, "run the tests that need Node, npm and rocksdb-tools")
	binary        = flag.String("bin", "", "the graphvol binary; without it only plain directories are tested")
	cacheDir      = flag.String("cache", "", "where npm packages are kept between runs")
)

// subject is a directory for a database, and a way to snapshot it.
type subject interface {
	dir() string
	snapshot(t *testing.T, name string) // of a database at work, if live is true
	snapshotDir(name string) string
	live() bool
	restart(t *testing.T) // with the database closed
}

type plainDir struct{ base string }

func (p plainDir) dir() string                    { return filepath.Join(p.base, "live") }
func (p plainDir) snapshotDir(name string) string { return filepath.Join(p.base, name) }
func (p plainDir) live() bool                     { return false }
func (p plainDir) restart(*testing.T)             {}
func (p plainDir) snapshot(t *testing.T, name string) {
	t.Helper()
	copyTree(t.Context(), t, p.dir(), p.snapshotDir(name))
}

type mountDir struct{ *volume.Volume }

func (m mountDir) dir() string                    { return m.Mount }
func (m mountDir) snapshotDir(name string) string { return m.SnapshotDir(name) }
func (m mountDir) live() bool                     { return true }
func (m mountDir) snapshot(t *testing.T, name string) {
	t.Helper()
	s, err := m.Snapshot(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("snapshot %s: %s, pause %.2f ms, seal %.0f ms, dirty %d KiB, stored %d KiB", name, s.Kind, s.PauseMS, s.SealMS,
		s.DirtyBytes>>10, s.StoredBytes>>10)
}

func (m mountDir) restart(t *testing.T) {
	t.Helper()
	if err := m.Umount(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// onSubjects runs the test on a plain directory, and on mounts in both cache modes, with and without kills of the server, if a binary is given.
func onSubjects(t *testing.T, test func(t *testing.T, s subject)) {
	t.Run("plain", func(t *testing.T) {
		p := plainDir{t.TempDir()}
		if err := os.Mkdir(p.dir(), 0o755); err != nil {
			t.Fatal(err)
		}
		test(t, p)
	})
	for _, cache := range []string{"writeback", "through"} {
		t.Run(cache, func(t *testing.T) { test(t, mounted(t, cache)) })
		t.Run(cache+"-killed", func(t *testing.T) { test(t, killAgain(t, mounted(t, cache))) })
	}
}

func mounted(t *testing.T, cache string) mountDir {
	t.Helper()
	if *binary == "" {
		t.Skip("-bin names no graphvol binary")
	}
	v, err := volume.New(volume.Options{Bin: *binary, Dir: t.TempDir(), Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := v.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return mountDir{v}
}

// restored copies a snapshot out with cp, as a user does.
func restored(t *testing.T, s subject, name string) string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), name)
	copyTree(t.Context(), t, s.snapshotDir(name), dst)
	return dst
}

func copyTree(ctx context.Context, t *testing.T, src, dst string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, "cp", "-a", src, dst).CombinedOutput(); err != nil {
		t.Fatalf("cp -a %s %s: %v: %s", src, dst, err, out)
	}
}

func needDatabases(t *testing.T, programs ...string) {
	t.Helper()
	if !*withDatabases {
		t.Skip("run with -databases (make integration)")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%v; `make integration` installs it", err)
		}
	}
}
