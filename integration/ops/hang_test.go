package ops

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

// signalHolder asks for a polite restart and waits for it.
func signalHolder(t *testing.T, v *volume.Volume) error {
	t.Helper()
	before := status(t, v)
	if err := unix.Kill(before.HolderPID, unix.SIGUSR2); err != nil {
		return err
	}
	awaitOther(t, v, before.ServerPID)
	return nil
}

// awaitOther waits until another server answers commands.
func awaitOther(t *testing.T, v *volume.Volume, old int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); status(t, v).ServerPID == old; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("server %d is not replaced", old)
		}
	}
}

// TestHungServer: a server that doesn't do anything is replaced; the database waits, and sees no error.
func TestHungServer(t *testing.T) {
	const bound = 2 * time.Second
	v := rig.Mounted(t, volume.Options{Args: []string{"--hang-timeout", bound.String()}})
	l := startLoad(t, v.Mount)
	for range *hangs {
		l.goOn()
		before := status(t, v)
		if err := unix.Kill(before.ServerPID, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		awaitOther(t, v, before.ServerPID)
		l.goOn()
		if st := status(t, v); st.HolderPID != before.HolderPID {
			t.Errorf("before %+v, after %+v", before, st)
		}
	}
	longest := l.check(v.Mount)
	if longest < bound || longest > 10*bound {
		t.Errorf("the longest wait was %v with a bound of %v", longest, bound)
	}
	if stacks := rig.TakeStderr(v); !strings.Contains(stacks, "SIGQUIT") || !strings.Contains(stacks, "graphvol/agent.Serve") {
		t.Errorf("no stacks: %.500s", stacks)
	}
	checkVolume(t, v, l)
}

const (
	fsFreeze = 0xc0045877 // FIFREEZE
	fsThaw   = 0xc0045878 // FITHAW
)

func ioctl(t *testing.T, dir string, req uint) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), req, 0); err != nil {
		t.Fatalf("ioctl %#x on %s: %v", req, dir, err)
	}
}

// TestFrozenDiskIsNoHang: a disk that takes no writes for longer than the bound, below both the backing and the state, as one that is being repaired or a
// snapshot of the storage system. Nothing may be replaced for that.
func TestFrozenDiskIsNoHang(t *testing.T) {
	const bound = 2 * time.Second // a busy machine takes a while to schedule a process that lives
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			d := rig.NewDisk(t, fstype, 400<<20, "")
			v := rig.Mounted(t, volume.Options{Dir: d.Dir, Mount: t.TempDir(), Args: []string{"--hang-timeout", bound.String()}})
			l := startLoad(t, v.Mount)
			l.goOn()
			before := status(t, v)
			ioctl(t, d.Dir, fsFreeze)
			thawed := false
			thaw := func() {
				if !thawed {
					ioctl(t, d.Dir, fsThaw)
				}
				thawed = true
			}
			defer thaw()
			time.Sleep(3 * bound)
			thaw()
			l.goOn()
			if after := status(t, v); after.ServerPID != before.ServerPID {
				log, _ := os.ReadFile(filepath.Join(v.StateDir(), "log", "holder.log"))
				t.Errorf("the server was replaced:\n%s", log)
			}
			if longest := l.check(v.Mount); longest < 2*bound {
				t.Errorf("the longest wait was %v: the disk did not stand still", longest)
			}
			checkVolume(t, v, l)
		})
	}
}
