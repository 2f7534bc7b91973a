package ops

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// upgraded is a row of upgrade --json.
type upgraded struct {
	Mount        string   `json:"mount"`
	OldVersion   string   `json:"old_version"`
	Version      string   `json:"version"`
	OldServerPID int      `json:"old_server_pid"`
	ServerPID    int      `json:"server_pid"`
	WaitedMS     float64  `json:"waited_ms"`
	Dropped      []string `json:"dropped"`
	Error        string   `json:"error"`
}

func upgrade(t *testing.T, v *volume.Volume, args ...string) (upgraded, error) {
	t.Helper()
	out, err := v.Run(t.Context(), append([]string{"upgrade", v.Mount, "--json"}, args...)...)
	var doc struct {
		Volumes []upgraded `json:"volumes"`
	}
	if jerr := json.Unmarshal([]byte(out), &doc); jerr != nil || len(doc.Volumes) != 1 {
		t.Fatalf("upgrade --json: %v, %v in %q", err, jerr, out)
	}
	return doc.Volumes[0], err
}

func status(t *testing.T, v *volume.Volume) volume.Status {
	t.Helper()
	st, err := v.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestUpgradeUnderLoad: two versions take turns, and the database notices nothing but a pause.
func TestUpgradeUnderLoad(t *testing.T) {
	for _, cache := range []string{"writeback", "through"} {
		t.Run(cache, func(t *testing.T) {
			v := rig.Mounted(t, volume.Options{Cache: cache})
			bins := []string{otherBinary(t), v.Bin}
			versions := []string{otherVersion, status(t, v).Version}
			l := startLoad(t, v.Mount)
			var waited float64
			for i := range *upgrades {
				l.goOn()
				snap := fmt.Sprintf("s%d", i)
				if _, err := v.Snapshot(t.Context(), snap, "--no-wait"); err != nil {
					t.Fatal(err)
				}
				before := status(t, v)
				up, err := upgrade(t, v, "--binary", bins[i%2])
				if err != nil {
					t.Fatal(err)
				}
				after := status(t, v)
				if up.Version != versions[i%2] || after.Version != up.Version || after.ServerPID != up.ServerPID || after.ServerPID == before.ServerPID ||
					after.HolderPID != before.HolderPID || up.WaitedMS <= 0 {
					t.Errorf("upgrade %d: %+v, before %+v, after %+v", i, up, before, after)
				}
				waited = max(waited, up.WaitedMS)
				// It was being stored when the upgrade was asked for.
				if s, err := v.WaitComplete(t.Context(), snap); err != nil || s.State != "complete" {
					t.Errorf("%+v, %v", s, err)
				}
			}
			l.goOn()
			longest := l.check(v.Mount)
			t.Logf("%d upgrades, longest wait %v, longest pause by the server's account %.0f ms", *upgrades, longest.Round(time.Millisecond), waited)
			checkVolume(t, v, l)
		})
	}
}

// checkVolume ends a test as a user checks: the last snapshot holds what was written, everything stored is well, the backing has it after unmounting.
func checkVolume(t *testing.T, v *volume.Volume, l *load) {
	t.Helper()
	if _, err := v.Snapshot(t.Context(), "last"); err != nil {
		t.Fatal(err)
	}
	l.check(v.SnapshotDir("last"))
	if _, err := v.Run(t.Context(), "verify", v.Mount, "--read-data"); err != nil {
		t.Error(err)
	}
	if err := v.Umount(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.check(v.Backing)
}

// fake makes a program that tells a version as bin does, and does something else than serve.
func fake(t *testing.T, bin, serve string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fake")
	text := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = version ]; then exec %s \"$@\"; fi\n%s\n", bin, serve)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUpgradeFallsBack: a program that looks well and doesn't serve. The former one does again, and the command says so.
func TestUpgradeFallsBack(t *testing.T) {
	v := rig.Mounted(t, volume.Options{Args: []string{"--hang-timeout", "1s"}})
	l := startLoad(t, v.Mount)
	version := status(t, v).Version
	for name, c := range map[string]struct{ serve, want string }{
		"exits":   {"exit 7", "exit status 7"},
		"crashes": {"kill -SEGV $$", "segmentation fault"},
		"hangs":   {"exec sleep 600", "does not begin to serve"},
	} {
		l.goOn()
		before := status(t, v)
		up, err := upgrade(t, v, "--binary", fake(t, v.Bin, c.serve))
		var exit *volume.ExitError
		if !errors.As(err, &exit) || exit.Code != 1 || !strings.Contains(exit.Stderr, c.want) || !strings.Contains(exit.Stderr, "serves "+v.Mount+" again") {
			t.Errorf("%s: %v", name, err)
		}
		after := status(t, v)
		if after.Version != version || after.ServerPID == before.ServerPID || up.ServerPID != after.ServerPID || up.Error == "" {
			t.Errorf("%s: %+v, before %+v, after %+v", name, up, before, after)
		}
		t.Logf("%s: %s", name, up.Error)
	}
	l.goOn()
	l.check(v.Mount)
	checkVolume(t, v, l)
}

// TestUpgradeRefused: what can be seen beforehand changes nothing at all.
func TestUpgradeRefused(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	inside := filepath.Join(v.Mount, "graphvol")
	if err := os.WriteFile(inside, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(inside, link); err != nil {
		t.Fatal(err)
	}
	before := status(t, v)
	for name, c := range map[string]struct{ path, want string }{
		"missing":       {filepath.Join(t.TempDir(), "none"), "no such file"},
		"other program": {"/bin/true", "is no graphvol"},
		"in the volume": {inside, "not lie in the volume"},
		"a link there":  {link, "lies in the volume"},
	} {
		up, err := upgrade(t, v, "--binary", c.path)
		if err == nil || !strings.Contains(up.Error, c.want) {
			t.Errorf("%s: %v, %+v, want %q", name, err, up, c.want)
		}
	}
	if after := status(t, v); after.ServerPID != before.ServerPID {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// TestUpgradeAndSnapshots: what is being stored is waited for, within a bound; nothing is lost without a word.
func TestUpgradeAndSnapshots(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	big := filepath.Join(v.Mount, "big")
	slow := func(name string) {
		rig.WriteFile(t, big, 96<<20)
		if _, err := v.Snapshot(t.Context(), name, "--no-wait"); err != nil {
			t.Fatal(err)
		}
	}
	before := status(t, v)
	slow("refused")
	if up, err := upgrade(t, v, "--timeout", "1ms"); err == nil || !strings.Contains(up.Error, "still under way: the snapshot refused") {
		t.Errorf("%+v, %v", up, err)
	}
	if after := status(t, v); after.ServerPID != before.ServerPID {
		t.Error("a refused upgrade replaced the server")
	}
	if _, err := v.WaitComplete(t.Context(), "refused"); err != nil {
		t.Error(err)
	}
	dropped := false
	for i := 0; !dropped && i < 10; i++ { // it may be complete in the same moment
		name := fmt.Sprint("forced", i)
		slow(name)
		up, err := upgrade(t, v, "--timeout", "1ms", "--force")
		if err != nil || len(up.Dropped) > 0 && !slices.Equal(up.Dropped, []string{name}) {
			t.Errorf("%+v, %v", up, err)
		}
		dropped = len(up.Dropped) > 0
		if _, err := v.WaitComplete(t.Context(), name); errors.Is(err, volume.ErrFailed) != dropped || err != nil && !dropped {
			t.Errorf("%s was said to be dropped: %v; it is: %v", name, dropped, err)
		}
	}
	if !dropped {
		t.Error("no snapshot was dropped by force")
	}
	// SIGUSR2, which has no way to refuse, waits too while the database works on.
	slow("signal")
	if err := signalHolder(t, v); err != nil {
		t.Fatal(err)
	}
	if s, err := v.WaitComplete(t.Context(), "signal"); err != nil {
		t.Errorf("%+v, %v", s, err)
	}
	want := rig.WriteFile(t, big, 1<<20)
	if _, err := v.Snapshot(t.Context(), "last"); err != nil {
		t.Fatal(err)
	}
	rig.SameFile(t, filepath.Join(v.SnapshotDir("last"), "big"), want)
}
