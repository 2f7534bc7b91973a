package copies

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graphvol/chunkstore/target/s3/s3test"
	"graphvol/integration/volume"
)

// TestKilledWhileCopying: a server that is killed again and again while it copies loses nothing, and the copy is whole at each moment.
func TestKilledWhileCopying(t *testing.T) {
	for _, k := range kinds()[1:] {
		t.Run(k.name, func(t *testing.T) {
			url := k.url(t)
			u := newUser(t, volume.Options{Args: k.args(url)})
			for i := range 6 {
				u.snapshot(fmt.Sprint("s", i))
				time.Sleep(time.Duration(u.rng.IntN(60)) * time.Millisecond) // a moment of the round, not a condition
				u.must(u.KillServer(t.Context()))
				if i == 3 {
					u.run("delete", u.Mount, "s1")
					delete(u.want, "s1")
					u.run("prune", u.Mount)
				}
			}
			u.upToDate(5)
			u.run("verify", u.Mount, "--read-data")
			recovery := filepath.Join(t.TempDir(), "recovery")
			u.must(os.WriteFile(recovery, []byte(u.run("key", "recovery", u.Mount)), 0o600))
			state := filepath.Join(t.TempDir(), "state")
			u.run("attach", url, state, "--key", recovery)
			u.restored(state)
		})
	}
}

// TestOutage: while the S3 server is away, snapshots go on and status says what is wrong; when it is back, the copy catches up by itself.
func TestOutage(t *testing.T) {
	srv := s3test.Start(t)
	u := newUser(t, volume.Options{Args: []string{"--target", srv.URL("graph")}})
	u.snapshot("a")
	u.upToDate(1)
	srv.Stop()
	for _, name := range []string{"b", "c"} {
		u.snapshot(name)
	}
	u.refused([]string{srv.Addr}, "sync", u.Mount, "--wait")
	if r := u.remotes(u.Mount); r[0].Phase != "waiting" || !strings.Contains(r[0].Error, srv.Addr) || r[0].Snapshots != 1 {
		t.Errorf("%+v", r)
	}
	u.must(srv.Restart(t.Context()))
	u.upToDate(3)
}

// TestDenied: a copy that refuses says why, and keeps nothing from working.
func TestDenied(t *testing.T) {
	srv := s3test.Start(t)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	u := newUser(t, volume.Options{Args: []string{"--target", srv.URL("graph")}})
	u.snapshot("a")
	u.refused([]string{"denies access", "secret key"}, "sync", u.Mount, "--wait")
	if r := u.remotes(u.Mount); r[0].Phase != "refused" || r[0].Snapshots != 0 {
		t.Errorf("%+v", r)
	}
	if _, err := u.Run(t.Context(), "verify", u.Mount); err != nil {
		t.Error(err)
	}
}

// TestDamagedRows: damage in what the index knows of a copy keeps neither the volume nor its snapshots from working, and a rebuild mends it.
func TestDamagedRows(t *testing.T) {
	k := kinds()[0]
	url := k.url(t)
	u := newUser(t, volume.Options{Args: k.args(url)})
	u.snapshot("a")
	u.upToDate(1)
	u.must(u.Umount(t.Context()))
	path := filepath.Join(u.StateDir(), "index.db")
	p, err := os.ReadFile(path)
	u.must(err)
	row := []byte("r1\x00manifests/")
	if !bytes.Contains(p, row) {
		t.Fatal("the index has no row of the manifest")
	}
	p = bytes.ReplaceAll(p, row, []byte("r1\x00manifestz/")) // in all pages that have it
	u.must(os.WriteFile(path, p, 0o600))
	u.must(u.Start(t.Context()))
	u.snapshot("b")
	for name, want := range u.want {
		same(t, name, content(t, u.SnapshotDir(name)), want)
	}
	if out := u.run("status", u.Mount); !strings.Contains(out, "graphvol rebuild") {
		t.Errorf("status doesn't say what to do: %s", out)
	}
	u.must(u.Umount(t.Context()))
	u.run("rebuild", u.Backing)
	u.must(u.Start(t.Context())) // names the target again
	u.snapshot("c")
	u.refused([]string{"--take-over"}, "sync", u.Mount, "--wait")
	u.run("sync", u.Mount, "--wait", "--take-over")
	u.upToDate(3)
}

// TestMissingDisk: a copy on a disk that isn't mounted doesn't fill the disk below.
func TestMissingDisk(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	u := newUser(t, volume.Options{Args: []string{"--target", "dir:" + disk + "/copy"}})
	u.snapshot("a")
	u.refused([]string{disk, "mount its disk"}, "sync", u.Mount, "--wait")
	if _, err := os.Stat(disk); !os.IsNotExist(err) {
		t.Errorf("the directory was made: %v", err)
	}
	u.must(os.Mkdir(disk, 0o755))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := u.Run(ctx, "sync", u.Mount, "--wait"); err != nil {
		t.Error(err)
	}
	u.upToDate(1)
}
