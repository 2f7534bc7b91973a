package hold

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/internal/fusedev"
)

// writer changes a file through the mount until it is told to stop, and remembers its longest wait.
type writer struct {
	ops    int
	count  atomic.Int64 // ops, for others
	worst  time.Duration
	err    error
	blocks map[int64]uint64 // what each block of the file must hold
	quit   chan struct{}
	done   chan struct{}
}

func startWriter(dir string) *writer {
	w := &writer{blocks: make(map[int64]uint64), quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		f, err := os.Create(filepath.Join(dir, "data"))
		if err != nil {
			w.err = err
			return
		}
		defer f.Close()
		for {
			select {
			case <-w.quit:
				return
			default:
			}
			start := time.Now()
			if w.err = w.step(dir, f); w.err != nil {
				return
			}
			w.worst = max(w.worst, time.Since(start))
			w.ops++
			w.count.Add(1)
		}
	}()
	return w
}

// step is one synced write, and now and then a file made and removed: what can't simply be done twice.
func (w *writer) step(dir string, f *os.File) error {
	block := int64(w.ops*7919) % 512
	var p [4096]byte
	binary.LittleEndian.PutUint64(p[:], uint64(w.ops+1))
	if _, err := f.WriteAt(p[:], block*4096); err != nil {
		return err
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("fdatasync: %w", err)
	}
	w.blocks[block] = uint64(w.ops + 1)
	if w.ops%4 != 0 {
		return nil
	}
	name := filepath.Join(dir, fmt.Sprintf("f%d", w.ops))
	g, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := g.Close(); err != nil {
		return err
	}
	return os.Remove(name)
}

func (w *writer) check(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block, want := range w.blocks {
		var p [8]byte
		if _, err := f.ReadAt(p[:], block*4096); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint64(p[:]); got != want {
			t.Errorf("block %d holds write %d, want %d", block, got, want)
		}
	}
}

func TestServerKilledUnderWriter(t *testing.T) {
	kills := 10
	if n, err := strconv.Atoi(os.Getenv("HOLD_TEST_KILLS")); err == nil {
		kills = n
	}
	r := newRig(t, nil)
	w := startWriter(r.conf.Mount)
	for range kills {
		// Long enough that the death isn't a quick one, and the writer in the middle of something.
		time.Sleep(quickDeath + 20*time.Millisecond)
		r.kill()
	}
	close(w.quit)
	<-w.done
	if w.err != nil {
		t.Fatalf("the writer saw: %v", w.err)
	}
	if n := r.info().Restarts; n != kills {
		t.Errorf("%d restarts, want %d", n, kills)
	}
	t.Logf("%d kills, %d synced writes, longest wait %v", kills, w.ops, w.worst.Round(time.Microsecond))
	w.check(t, filepath.Join(r.conf.Backing, "data"))
	if err := Unmount(context.Background(), r.conf.Mount, r.conf.Info); err != nil {
		t.Fatal(err)
	}
	r.waitEnd()
}

func TestPoliteRestart(t *testing.T) {
	r := newRig(t, nil)
	w := startWriter(r.conf.Mount)
	for range 5 {
		n := w.count.Load()
		eventually(t, "writes go on", func() bool { return w.count.Load() > n+20 })
		before := r.info().Server
		if err := r.info().Upgrade(); err != nil {
			t.Fatal(err)
		}
		r.waitReady()
		if before.Alive() {
			t.Error("the old server lives")
		}
	}
	close(w.quit)
	<-w.done
	if w.err != nil {
		t.Fatalf("the writer saw: %v", w.err)
	}
	if log := r.log(); strings.Contains(log, "next server") || strings.Contains(log, "died") {
		t.Errorf("not polite:\n%s", log)
	}
	t.Logf("5 restarts, %d synced writes, longest wait %v", w.ops, w.worst.Round(time.Microsecond))
	w.check(t, filepath.Join(r.conf.Backing, "data"))
}

// An upgrade: another program takes the mount over.
func TestRestartOtherProgram(t *testing.T) {
	next := filepath.Join(t.TempDir(), "next")
	r := newRig(t, func(c *testConf) { c.Next = next })
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(next, self, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(r.conf.Mount, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := r.info().Server.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	r.waitReady()
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.info().Server.PID)); err != nil || exe != next {
		t.Errorf("the server is %s, %v", exe, err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Error(err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
}

func TestUnlinkedFileSurvives(t *testing.T) {
	r := newRig(t, nil)
	path := filepath.Join(r.conf.Mount, "gone")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("still here"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.kill()
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 10)
		if _, err := f.ReadAt(got, 0); err != nil || string(got) != "still here" {
			t.Fatalf("read %q, %v", got, err)
		}
		if _, err := f.WriteAt([]byte("still"), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnmountEndsEverything(t *testing.T) {
	for name, unmount := range map[string]func(r *rig) error{
		"umount":  func(r *rig) error { return Unmount(context.Background(), r.conf.Mount, r.conf.Info) },
		"foreign": func(r *rig) error { return unix.Unmount(r.conf.Mount, 0) },
		"sigterm": func(r *rig) error { return r.info().Holder.Signal(syscall.SIGTERM) },
		"server":  func(r *rig) error { return r.info().Server.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			in := r.info()
			if err := unmount(r); err != nil {
				t.Fatal(err)
			}
			r.waitEnd()
			if in.Alive() {
				t.Error("a process is left")
			}
			if _, err := os.Stat(r.conf.Info); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pid file: %v", err)
			}
			if _, ok, err := MountAt(r.conf.Mount); ok || err != nil {
				t.Errorf("mount: %v, %v", ok, err)
			}
			if code := r.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestBusyNamesUsers(t *testing.T) {
	r := newRig(t, nil)
	f, err := os.Create(filepath.Join(r.conf.Mount, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sleeper := exec.Command("sleep", "60")
	sleeper.Dir = r.conf.Mount
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleeper.Wait()
	defer sleeper.Process.Kill()
	err = Unmount(context.Background(), r.conf.Mount, r.conf.Info)
	var busy *BusyError
	if !errors.As(err, &busy) {
		t.Fatalf("got %v", err)
	}
	for pid, how := range map[int]string{os.Getpid(): filepath.Join(r.conf.Mount, "open"), sleeper.Process.Pid: "cwd"} {
		i := slices.IndexFunc(busy.Users, func(u User) bool { return u.PID == pid })
		if i < 0 || !slices.Contains(busy.Users[i].How, how) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", pid)) {
			t.Errorf("process %d by %s is not named: %v", pid, how, err)
		}
	}
	t.Log(err)
	// The holder says the same when a signal asks it.
	r.info().Holder.Signal(syscall.SIGTERM)
	eventually(t, "a log line about the busy mount", func() bool { return strings.Contains(r.log(), fmt.Sprintf("pid %d", sleeper.Process.Pid)) })
}

// TestElsewhere: an unmount doesn't wait for other mount namespaces, which may keep the mount for good. It says which, and how to end that.
func TestElsewhere(t *testing.T) {
	r := newRig(t, nil)
	// A shell that has the mount as well, as unshare makes all of it private. It lets go of other tests' at once, and then does what it is told by a line.
	other := exec.Command("unshare", "--mount", "sh", "-c", `
		grep ' fuse.graphvol ' /proc/self/mounts | cut -d' ' -f2 | grep -vFx "$0" | while read -r m; do umount -l "$m"; done
		echo ready; read -r line; umount "$0"; echo unmounted; read -r line`, r.conf.Mount)
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer in.Close()
	said := bufio.NewScanner(out)
	if !said.Scan() {
		t.Skip("no mount namespaces here")
	}
	err = Unmount(context.Background(), r.conf.Mount, r.conf.Info)
	var elsewhere *ElsewhereError
	if !errors.As(err, &elsewhere) || len(elsewhere.Found) != 1 || elsewhere.Found[0].Point != r.conf.Mount || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", other.Process.Pid)) {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	fmt.Fprintln(in)
	said.Scan()
	r.waitEnd()
}

func TestOverItself(t *testing.T) {
	r := newRig(t, func(c *testConf) { c.Mount = c.Backing })
	if err := os.WriteFile(filepath.Join(r.conf.Mount, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.kill()
	if _, err := os.Stat(filepath.Join(r.conf.Mount, "a")); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(context.Background(), r.conf.Mount, r.conf.Info); err != nil {
		t.Fatal(err)
	}
	r.waitEnd()
	if b, err := os.ReadFile(filepath.Join(r.conf.Backing, "a")); err != nil || string(b) != "x" {
		t.Errorf("backing file: %q, %v", b, err)
	}
}

// killAll leaves a dead mount behind.
func killAll(t *testing.T, r *rig) {
	t.Helper()
	in := r.info()
	for _, p := range []Process{in.Holder, in.Server} {
		if err := p.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	r.waitEnd()
	eventually(t, "the mount is dead", func() bool { return Dead(context.Background(), r.conf.Mount) })
}

func TestStaleMountCleaned(t *testing.T) {
	for _, over := range []bool{false, true} {
		first := newRig(t, func(c *testConf) {
			if over {
				c.Mount = c.Backing
			}
		})
		if _, err := CleanStale(context.Background(), first.conf.Mount, first.conf.Info); !errors.Is(err, ErrInUse) {
			t.Fatalf("live: %v", err)
		}
		if _, err := CleanStale(context.Background(), first.conf.Mount, ""); !errors.Is(err, ErrInUse) {
			t.Fatalf("live, unknown state: %v", err)
		}
		killAll(t, first)
		second := newRig(t, func(c *testConf) { *c = first.conf })
		if err := os.WriteFile(filepath.Join(second.conf.Mount, "a"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		killAll(t, second)
		if err := Unmount(context.Background(), second.conf.Mount, second.conf.Info); err != nil {
			t.Fatal(err)
		}
		if _, ok, _ := MountAt(second.conf.Mount); ok {
			t.Error("still mounted")
		}
	}
}

func TestServerOutlivesHolder(t *testing.T) {
	r := newRig(t, nil)
	in := r.info()
	in.Holder.Signal(syscall.SIGKILL)
	r.waitEnd()
	if err := os.WriteFile(filepath.Join(r.conf.Mount, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CleanStale(context.Background(), r.conf.Mount, r.conf.Info); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	if err := Unmount(context.Background(), r.conf.Mount, r.conf.Info); err != nil {
		t.Fatal(err)
	}
	if in.Server.Alive() {
		t.Error("the server lives")
	}
}

func TestFirstServerFails(t *testing.T) {
	r := startRig(t, func(c *testConf) { c.Crash = "early" })
	if line := r.line(); line != "error the state is broken" {
		t.Errorf("got %q", line)
	}
	r.waitEnd()
	if _, ok, err := MountAt(r.conf.Mount); ok || err != nil {
		t.Errorf("mount: %v, %v", ok, err)
	}
}

func TestGivesUp(t *testing.T) {
	r := newRig(t, func(c *testConf) { c.Crash, c.QuickDeaths = "after", 3 })
	// Dirty pages that nobody will ever take must not block the way out.
	if err := os.WriteFile(filepath.Join(r.conf.Mount, "dirty"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(r.conf.Mount, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(quickDeath)
	r.info().Server.Signal(syscall.SIGKILL)
	if line := r.line(); !strings.Contains(line, ErrGaveUp.Error()) || !strings.Contains(line, "exit status 3") {
		t.Errorf("got %q", line)
	}
	r.waitEnd()
	if _, ok, err := MountAt(r.conf.Mount); ok || err != nil {
		t.Errorf("mount: %v, %v", ok, err)
	}
}

func TestRemountsWithoutResend(t *testing.T) {
	r := newRig(t, func(c *testConf) { c.NoResend = true })
	f, err := os.Create(filepath.Join(r.conf.Mount, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r.kill()
	if _, err := f.Stat(); !errors.Is(err, unix.ENOTCONN) {
		// Attributes may come from the kernel's cache; a write can't.
		if _, err = f.WriteAt([]byte("x"), 0); err == nil {
			err = f.Sync()
		}
		if err == nil {
			t.Error("a file of the dead mount can be written")
		}
	}
	if err := os.WriteFile(filepath.Join(r.conf.Mount, "b"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUnmountNotMounted(t *testing.T) {
	if err := Unmount(context.Background(), t.TempDir(), ""); !errors.Is(err, ErrNotMounted) {
		t.Errorf("got %v", err)
	}
}

// Without the right to mount, fusermount3 does it.
func TestMountHelper(t *testing.T) {
	if _, err := fusedev.Helper(); err != nil {
		t.Skip(err)
	}
	r := newRig(t, func(c *testConf) { c.Helper = true })
	m, ok, err := MountAt(r.conf.Mount)
	if err != nil || !ok || m.FSType != FSType || m.Source != r.conf.Backing || !strings.Contains(m.SuperOptions, "default_permissions") {
		t.Fatalf("%+v, %v", m, err)
	}
	if err := os.WriteFile(filepath.Join(r.conf.Mount, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.kill()
	f, err := os.Open(filepath.Join(r.conf.Mount, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unmountHelper(m.Point, "-u"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("busy: %v", err)
	}
	f.Close()
	if err := unmountHelper(m.Point, "-u"); err != nil {
		t.Fatal(err)
	}
	r.waitEnd()
}

// A dying process closes its files, which waits for an answer to FLUSH. If one of them is on the mount that the process served, only its successor can answer.
func TestServerDiesWithOwnFileOpen(t *testing.T) {
	r := newRig(t, func(c *testConf) { c.OpenSelf = true })
	eventually(t, "the server opens a file of its own mount", func() bool { return strings.Contains(r.log(), "opened own file") })
	time.Sleep(quickDeath)
	r.kill()
	if err := os.WriteFile(filepath.Join(r.conf.Mount, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}
