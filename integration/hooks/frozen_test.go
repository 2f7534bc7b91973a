// Package hooks tests a volume's hooks against what only a real kernel does to them.
package hooks

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/agent/config"
	"graphvol/agent/hook"
	"graphvol/integration/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

const fsThaw = 0xc0045878 // FITHAW

// TestFrozen: a hook that waits for a disk which the hook before it has frozen can't even be killed. The post hooks must be run nevertheless, since it is for them to thaw the disk.
func TestFrozen(t *testing.T) {
	rig.NeedRoot(t)
	d := rig.NewDisk(t, "ext4", 64<<20, "")
	defer thaw(d.Dir)
	log := filepath.Join(t.TempDir(), "log")
	sh := func(script string) config.Hook { return config.Hook{Command: []string{"/bin/sh", "-c", script}} }
	hangs := sh("exec touch " + d.Dir + "/file")
	hangs.Timeout = time.Second
	a := hook.Around{
		Volume: "graph", Mount: "/mnt/graph", Snapshot: "monday", Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		Hooks: config.Hooks{
			Pre:  []config.Hook{sh("fsfreeze -f " + d.Dir), hangs},
			Post: []config.Hook{sh("fsfreeze -u " + d.Dir), sh("echo post > " + log)},
		},
	}
	_, err := hook.Pre(t.Context(), a)
	if err == nil || !strings.Contains(err.Error(), "because the kernel doesn't end it") {
		t.Fatalf("%v: the hook was no such hook", err)
	}
	if raw, err := os.ReadFile(log); string(raw) != "post\n" {
		t.Errorf("the last post hook: %q, %v", raw, err)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "written"), []byte("x"), 0o600); err != nil {
		t.Errorf("the disk after it: %v", err)
	}
	// What was left behind ends when it can.
	var pid int
	if _, err := fmt.Sscanf(err.Error()[strings.Index(err.Error(), "(process "):], "(process %d)", &pid); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); unix.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d was not reaped", pid)
		}
	}
}

// thaw lets the rig unmount a disk whatever has become of the test.
func thaw(dir string) {
	if f, err := os.Open(dir); err == nil {
		unix.IoctlSetInt(int(f.Fd()), fsThaw, 0)
		f.Close()
	}
}
