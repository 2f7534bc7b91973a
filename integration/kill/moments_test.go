package kill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// bulk is how much is dirty when a snapshot is stored, so that it takes a while.
const bulk = 32 << 20

// moment is a command in whose midst the server is killed.
type moment struct {
	name    string
	prepare func(t *testing.T, k *killer, i int) // what the command needs
	args    func(k *killer, i int) []string
	hint    string                               // of the one line that it says if it could not end well; empty: it must
	check   func(t *testing.T, k *killer, i int) // after a command that ended well
}

// moments: each command works on things of its own run, number i.
func moments() []moment {
	name := func(i int) string { return fmt.Sprintf("s%d", i) }
	return []moment{
		{name: "snapshot", prepare: makeDirty, hint: "take it again",
			args:  func(k *killer, i int) []string { return []string{"snapshot", k.Mount, "--name", name(i)} },
			check: func(t *testing.T, k *killer, i int) { mustBe(t, k, name(i), "complete") }},
		{name: "snapshot without waiting", prepare: makeDirty, hint: "take it again",
			args: func(k *killer, i int) []string { return []string{"snapshot", k.Mount, "--name", name(i), "--no-wait"} }},
		{name: "delete", prepare: makeSnapshot, hint: "then try again",
			args:  func(k *killer, i int) []string { return []string{"delete", k.Mount, name(i)} },
			check: func(t *testing.T, k *killer, i int) { mustBe(t, k, name(i), "") }},
		{name: "prune", hint: "then try again",
			prepare: func(t *testing.T, k *killer, i int) {
				makeSnapshot(t, k, i)
				if _, err := k.Run(t.Context(), "delete", k.Mount, name(i)); err != nil {
					t.Fatal(err)
				}
			},
			args: func(k *killer, i int) []string { return []string{"prune", k.Mount} }},
		{name: "verify", prepare: makeSnapshot, hint: "then try again",
			args: func(k *killer, i int) []string { return []string{"verify", k.Mount, "--read-data"} }},
		{name: "restore elsewhere", prepare: makeSnapshot, hint: "then try again",
			args:  func(k *killer, i int) []string { return []string{"restore", k.Mount, name(i), k.copyOf(i)} },
			check: func(t *testing.T, k *killer, i int) { restored(t, k, i, k.copyOf(i)) }},
		{name: "restore in place", // the kernel waits for the next server, and so does the command
			prepare: func(t *testing.T, k *killer, i int) { makeSnapshot(t, k, i); makeDirty(t, k, i) },
			args: func(k *killer, i int) []string {
				return []string{"restore", k.Mount, name(i), k.Mount, "bulk"}
			},
			check: func(t *testing.T, k *killer, i int) { restored(t, k, i, k.Mount) }},
	}
}

// TestKilledDuring kills the server in the middle of each command, with clients beside it.
func TestKilledDuring(t *testing.T) {
	k := &killer{Volume: rig.Mounted(t, volume.Options{}), rng: newRand(t)}
	if err := os.Mkdir(filepath.Join(k.Mount, "bulk"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := startClients(t, k.Mount, map[string]maker{
		"log": logClient, "mapped": mappedClient, "replaced": replacedClient, "names": namesClient, "unlinked": unlinkedClient,
	})
	c.end(t)
	i := 0
	for _, m := range moments() {
		t.Run(m.name, func(t *testing.T) {
			for range max(1, *runs/10) {
				i++
				k.during(t, m, i, c)
				if t.Failed() {
					t.FailNow()
				}
			}
		})
	}
	c.close()
}

// during runs the command once, undisturbed for a random part of the time that such commands take, and checks everything afterwards.
func (k *killer) during(t *testing.T, m moment, i int, c *clients) {
	m.prepare(t, k, i)
	c.run(t)
	done := make(chan error, 1)
	go func() {
		_, err := k.Run(context.WithoutCancel(t.Context()), m.args(k, i)...)
		done <- err
	}()
	k.pause(t.Context(), 10*time.Millisecond, 400*time.Millisecond)
	k.once(t, i%3 == 0)
	err := <-done
	c.end(t)
	if m.hint == "" && err != nil {
		t.Error(err)
	}
	oneLine(t, err, m.hint)
	if err == nil && m.check != nil {
		m.check(t, k, i)
	}
	var exit *volume.ExitError
	if errors.As(err, &exit) {
		t.Logf("run %d: %s", i, strings.TrimSpace(exit.Stderr))
	}
	c.check(t, k.Mount)
	next := fmt.Sprintf("after-%d", i)
	checkVolume(t, k.Volume, next)
	c.check(t, k.SnapshotDir(next))
}

func makeDirty(t *testing.T, k *killer, i int) {
	t.Helper()
	rig.WriteFile(t, filepath.Join(k.Mount, "bulk", "file"), bulk)
}

func makeSnapshot(t *testing.T, k *killer, i int) {
	t.Helper()
	makeDirty(t, k, i)
	if _, err := k.Snapshot(t.Context(), fmt.Sprintf("s%d", i)); err != nil {
		t.Fatal(err)
	}
}

func (k *killer) copyOf(i int) string {
	return filepath.Join(filepath.Dir(k.Mount), fmt.Sprintf("copy%d", i))
}

// restored fails the test if the bulk isn't in dir as the snapshot has it.
func restored(t *testing.T, k *killer, i int, dir string) {
	t.Helper()
	at := func(root string) map[string]string { return describe(t, filepath.Join(root, "bulk")) }
	sameTree(t, "restored", at(dir), at(k.SnapshotDir(fmt.Sprintf("s%d", i))))
}

// mustBe fails the test if a snapshot isn't in that state; empty: not listed.
func mustBe(t *testing.T, k *killer, name, state string) {
	t.Helper()
	all, err := k.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, s := range all {
		if s.Name == name {
			got = s.State
		}
	}
	if got != state {
		t.Errorf("the snapshot %s is %q, want %q", name, got, state)
	}
}

// TestKilledWhileSealing: a snapshot that is being stored when the server dies is dropped, its command says so, and the next one has what it
// would have held.
func TestKilledWhileSealing(t *testing.T) {
	k := &killer{Volume: rig.Mounted(t, volume.Options{}), rng: newRand(t)}
	if err := os.Mkdir(filepath.Join(k.Mount, "bulk"), 0o755); err != nil {
		t.Fatal(err)
	}
	dropped := 0
	for i := range max(2, *runs/10) {
		makeDirty(t, k, i)
		name := fmt.Sprintf("s%d", i)
		done := make(chan error, 1)
		go func() {
			_, err := k.Run(t.Context(), "snapshot", k.Mount, "--name", name)
			done <- err
		}()
		for all := []volume.Snapshot(nil); !has(all, name); { // it is in the catalogue
			var err error
			if all, err = k.Snapshots(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(done) > 0 {
				break
			}
		}
		k.once(t, i%3 == 2)
		err := <-done
		oneLine(t, err, "the snapshot "+name+" was dropped")
		if err != nil {
			dropped++
			mustBe(t, k, name, "failed")
		} else {
			mustBe(t, k, name, "complete")
		}
		checkVolume(t, k.Volume, fmt.Sprintf("after-%d", i))
	}
	t.Logf("%d snapshots dropped", dropped)
}

func has(all []volume.Snapshot, name string) bool {
	for _, s := range all {
		if s.Name == name {
			return true
		}
	}
	return false
}

// TestKilledWhileUnmounting: umount unmounts, also without the server that it talked to, or says what to do; nothing is lost.
func TestKilledWhileUnmounting(t *testing.T) {
	k := &killer{Volume: rig.Mounted(t, volume.Options{}), rng: newRand(t)}
	ctx := t.Context()
	for i := range max(2, *runs/10) {
		want := rig.WriteFile(t, filepath.Join(k.Mount, "file"), 8<<20) // dirty in the kernel
		done := make(chan error, 1)
		go func() {
			_, err := k.Run(ctx, "umount", k.Mount)
			done <- err
		}()
		k.pause(ctx, 0, 150*time.Millisecond)
		if info, err := k.pids(); err == nil { // else it is unmounted already
			info.Server.Signal(unix.SIGKILL)
		}
		oneLine(t, <-done, "try again")
		if volume.Mounted(k.Mount) {
			if err := k.Umount(ctx); err != nil {
				t.Fatal(err)
			}
		}
		rig.SameFile(t, filepath.Join(k.Backing, "file"), want)
		if err := k.Start(ctx); err != nil {
			t.Fatal(err)
		}
		checkVolume(t, k.Volume, fmt.Sprintf("after-%d", i))
	}
}
