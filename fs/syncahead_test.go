package fs

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/fs/cow/backing"
)

// logFile is a syncAhead with what it would ask of the backing.
type logFile struct {
	syncAhead
	t            *testing.T
	began, whole int   // fdatasyncs ahead, and complete ones
	ahead, later error // how they end
}

func (l *logFile) write() {
	l.written(func() (func() error, error) {
		l.began++
		return func() error { return l.ahead }, nil
	})
}

func (l *logFile) fsync(datasync bool) error {
	return l.sync(datasync, func() error { l.whole++; return l.later })
}

// append writes and syncs n times.
func (l *logFile) append(n int) {
	l.t.Helper()
	for range n {
		l.write()
		if err := l.fsync(true); err != nil {
			l.t.Fatal(err)
		}
	}
}

// did checks how many fdatasyncs there were since it was asked last.
func (l *logFile) did(began, whole int) {
	l.t.Helper()
	if l.began != began || l.whole != whole {
		l.t.Errorf("%d began ahead and %d were complete, want %d and %d", l.began, l.whole, began, whole)
	}
	l.began, l.whole = 0, 0
}

func newLog(t *testing.T) *logFile {
	l := &logFile{t: t}
	l.append(habitual)
	l.did(0, habitual)
	return l
}

func TestHabit(t *testing.T) {
	for name, c := range map[string]struct {
		other        func(l *logFile)
		began, whole int
	}{
		"goes on":               {func(l *logFile) { l.append(3) }, 3, 0},
		"ends with two writes":  {func(l *logFile) { l.write(); l.write(); l.fsync(true) }, 1, 1},
		"ends with many writes": {func(l *logFile) { l.write(); l.write(); l.write(); l.write() }, 1, 0},
		"ends with no write":    {func(l *logFile) { l.fsync(true) }, 0, 1},
		"ends with fsync":       {func(l *logFile) { l.write(); l.fsync(false) }, 1, 1},
		"ends with a change":    {func(l *logFile) { l.interrupt() }, 0, 0},
		"ends at close":         {func(l *logFile) { l.write(); l.close() }, 1, 0},
		"change after write":    {func(l *logFile) { l.write(); l.interrupt(); l.fsync(true) }, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			c.other(l)
			l.did(c.began, c.whole)
			l.append(1)
			if name == "goes on" {
				l.did(1, 0)
			} else {
				l.did(0, 1)
			}
		})
	}
}

// TestErrorAhead: an error is told once, to whoever waits, whatever came in between; the backing wouldn't tell it again.
func TestErrorAhead(t *testing.T) {
	for name, between := range map[string]func(l *logFile){
		"nothing": func(*logFile) {},
		"a write": func(l *logFile) { l.write() },
		"a close": func(l *logFile) {
			if l.close() {
				l.t.Error("closed, with an error to be told")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.ahead = unix.EIO
			l.write()
			between(l)
			if err := l.fsync(true); err != unix.EIO {
				t.Errorf("the first FSYNC says %v", err)
			}
			l.did(1, 0)
			if err := l.fsync(true); err != nil {
				t.Errorf("the second FSYNC says %v", err)
			}
			l.did(0, 1)
		})
	}
}

// TestHold: only what the kernel may have saved by itself is held, and only until the next write.
func TestHold(t *testing.T) {
	l := newLog(t)
	at := func(d time.Duration) backing.Time {
		x := time.Now().Add(d)
		return backing.Time{Sec: x.Unix(), Nsec: uint32(x.Nanosecond())}
	}
	if l.hold(at(0)) {
		t.Error("held without an fdatasync ahead")
	}
	l.write()
	if l.hold(at(-time.Minute)) || l.hold(at(time.Minute)) {
		t.Error("a user's time was held")
	}
	want := at(0)
	if !l.hold(want) {
		t.Fatal("the kernel's time wasn't held")
	}
	if got := l.release(); got == nil || *got != want {
		t.Errorf("released %v, want %v", got, want)
	}
	if l.release() != nil {
		t.Error("released twice")
	}
	l.hold(want)
	l.fsync(true)
	l.write()
	if l.release() != nil {
		t.Error("a write has left the older time")
	}
}

// watched is a volume that counts, and whose fdatasyncs ahead can fail.
type watched struct {
	Volume
	ahead, whole atomic.Int32
	fail         atomic.Bool
}

func (v *watched) StartSync(ino uint64) (func() error, error) {
	v.ahead.Add(1)
	wait, err := v.Volume.StartSync(ino)
	return func() error {
		if err := wait(); err != nil || !v.fail.Load() {
			return err
		}
		return unix.EIO
	}, err
}

func (v *watched) Fsync(ino uint64, datasync bool) error {
	v.whole.Add(1)
	return v.Volume.Fsync(ino, datasync)
}

// logMount is a mounted, watched volume with a file that is written as a log is.
type logMount struct {
	*world
	vol *watched
	f   *os.File
}

func mountLog(t *testing.T) *logMount {
	l := &logMount{world: newWorld(t, WriteBack), vol: &watched{}}
	l.wrap = func(v Volume) Volume { l.vol.Volume = v; return l.vol }
	l.start()
	var err error
	l.f, err = os.Create(l.mnt + "/log")
	l.must(err)
	t.Cleanup(func() { l.f.Close() })
	return l
}

func (l *logMount) append(meanwhile func()) error {
	if _, err := l.f.Write(make([]byte, 150)); err != nil {
		return err
	}
	meanwhile()
	return unix.Fdatasync(int(l.f.Fd()))
}

// appendLate appends until times are held. Between write and fdatasync the clock ticks from which the kernel takes mtimes: so each
// is a new one, and it isn't the backing's own.
func (l *logMount) appendLate() {
	l.t.Helper()
	for range 2 * habitual {
		l.must(l.append(func() {
			for before := coarseNow(); coarseNow() == before; {
			}
		}))
	}
	if l.vol.ahead.Load() == 0 {
		l.t.Fatal("nothing was synced ahead")
	}
}

func coarseNow() (ts unix.Timespec) {
	unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts)
	return ts
}

func (l *logMount) mtime(dir string) time.Time {
	st, err := os.Stat(dir + "/log")
	l.must(err)
	return st.ModTime()
}

func TestSyncAheadOfTheKernel(t *testing.T) {
	l := mountLog(t)
	for range habitual + 6 {
		l.must(l.append(func() {}))
	}
	if a, n := l.vol.ahead.Load(), l.vol.whole.Load(); a != 6 || n != habitual {
		t.Errorf("%d fdatasyncs ahead, %d others; want 6 and %d", a, n, habitual)
	}
	l.vol.fail.Store(true)
	if err := l.append(func() {}); !errors.Is(err, unix.EIO) {
		t.Errorf("a failed fdatasync ahead: %v", err)
	}
	l.vol.fail.Store(false)
	l.must(l.append(func() {}))
}

// TestHeldMtime: the backing has the kernel's mtime wherever somebody may look for it.
func TestHeldMtime(t *testing.T) {
	for name, look := range map[string]func(l *logMount){
		"fsync":    func(l *logMount) { l.must(l.f.Sync()) },
		"snapshot": func(l *logMount) { l.must(l.flusher.Flush(context.Background())) },
		"chmod":    func(l *logMount) { l.must(os.Chmod(l.mnt+"/log", 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			l := mountLog(t)
			l.appendLate()
			look(l)
			if shown, have := l.mtime(l.mnt), l.mtime(l.back); !shown.Equal(have) {
				t.Errorf("the mount shows %v, the backing has %v", shown, have)
			}
		})
	}
}

// TestClosedLogLeavesNothing: no state of the file, and no time that the backing should have.
func TestClosedLogLeavesNothing(t *testing.T) {
	l := mountLog(t)
	l.appendLate()
	st, err := l.f.Stat()
	l.must(err)
	ino := st.Sys().(*syscall.Stat_t).Ino
	l.f.Close()
	for end := time.Now().Add(10 * time.Second); l.srv.known(ino) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a closed file has left a state")
		}
	}
	if have := l.mtime(l.back); !st.ModTime().Equal(have) {
		t.Errorf("the mount showed %v, the backing has %v", st.ModTime(), have)
	}
}

// TestSavedMtimeComesBack: a write that brings no new mtime leaves the one that the kernel saved last.
func TestSavedMtimeComesBack(t *testing.T) {
	l := &logFile{t: t}
	saved := backing.Time{Sec: 1, Nsec: 2}
	expect := func(what string, want *backing.Time) {
		t.Helper()
		held := l.clean()
		got := l.release()
		if held != (want != nil) || (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: %v is held, want %v", what, got, want)
		}
	}
	l.write()
	l.finds(backing.Time{Sec: 9}) // the write's own, perhaps
	expect("no mtime is known", nil)
	l.saves(&saved)
	expect("it was saved after the write", nil)
	l.write()
	expect("a write without one", &saved)
	expect("it was set already", nil)
	l.interrupt()
	expect("a change of another kind", &saved)
	l.saves(nil)
	l.write()
	expect("it was set to the server's clock", nil)
}

func TestMtimeFoundAtOpening(t *testing.T) {
	l := &logFile{t: t}
	found := backing.Time{Sec: 1}
	l.finds(found)
	l.finds(backing.Time{Sec: 2}) // a second open, after a write of somebody else
	l.write()
	if got := l.clean(); !got || *l.release() != found {
		t.Error("the mtime that the file had when it was opened isn't held")
	}
}
