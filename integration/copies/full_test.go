package copies

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// TestFullTarget: a disk of a spread copy that is full costs it some of its strength, which is told, and nothing else; with room again, it gets what it lacks.
func TestFullTarget(t *testing.T) {
	d := newDisks(t, 2)
	full := rig.Tmpfs(t, "2m")
	d = append(d, full)
	u := newUser(t, volume.Options{Args: d.mountArgs("2+1")})
	for _, name := range []string{"a", "b", "c"} {
		rig.WriteFile(t, filepath.Join(u.Mount, name), 3<<20) // half of it goes to each disk
		u.snapshot(name)
		u.run("sync", u.Mount, "--wait")
	}
	if out := u.run("status", u.Mount); u.degraded() == 0 || !strings.Contains(out, "not on all targets: some are away, or full") {
		t.Errorf("status: %s", out)
	}
	recovery := filepath.Join(t.TempDir(), "recovery")
	u.must(os.WriteFile(recovery, []byte(u.run("key", "recovery", u.Mount)), 0o600))
	attach := append([]string{"attach"}, d.urls()...)
	state := filepath.Join(t.TempDir(), "state")
	u.run(append(attach, state, "--erasure", "2+1", "--key", recovery)...)
	u.restored(state)

	u.must(unix.Mount("tmpfs", full, "tmpfs", unix.MS_REMOUNT, "size=64m"))
	u.run("repair", u.Mount)
	var scrubbed struct {
		Copies []struct{ Weak, Damaged, Missing, Objects int }
	}
	u.must(json.Unmarshal([]byte(u.run("scrub", u.Mount, "--json")), &scrubbed))
	if c := scrubbed.Copies; len(c) != 1 || c[0].Weak+c[0].Damaged+c[0].Missing != 0 || c[0].Objects == 0 {
		t.Errorf("after the repair: %+v", scrubbed)
	}
	if n := u.degraded(); n != 0 {
		t.Errorf("after the repair %d objects are degraded", n)
	}
}
