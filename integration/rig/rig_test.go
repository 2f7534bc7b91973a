package rig_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
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

// TestTakeStderr: a crash of the server, from which the volume recovers, doesn't go unnoticed.
func TestTakeStderr(t *testing.T) {
	v := rig.Mounted(t, volume.Options{})
	st, err := v.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if report := rig.TakeStderr(v); report != "" {
		t.Fatalf("without a crash: %s", report)
	}
	if err := unix.Kill(st.ServerPID, unix.SIGQUIT); err != nil { // Go's runtime shows all goroutines and exits
		t.Fatal(err)
	}
	var report strings.Builder
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(report.String(), "SIGQUIT"); {
		if time.Now().After(deadline) {
			t.Fatalf("no report of the crash: %q", report.String())
		}
		time.Sleep(10 * time.Millisecond)
		report.WriteString(rig.TakeStderr(v))
	}
	if _, err := v.Status(t.Context()); err != nil { // from the next server: the report of the one before is complete
		t.Fatal(err)
	}
	rig.TakeStderr(v)
}
