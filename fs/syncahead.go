package fs

import (
	"sync"
	"time"

	"graphvol/fs/cow/backing"
)

const (
	habitual = 4                      // writes in a row, each followed by its fdatasync, that make a habit
	holdTime = 100 * time.Millisecond // for how long an mtime is held, and how long before its write's arrival it may lie
)

// syncAhead makes fdatasync faster for a file that is written as a log is: one write, one fdatasync, again and again. The kernel
// makes three requests of that, one after the other: WRITE, SETATTR with its mtime, FSYNC. While a file has that habit, the backing's
// fdatasync begins at WRITE, and the mtime is held: setting it would wait for the journal that is just being written.
//
//	FSYNC succeeds               ⇒  an fdatasync has that began after the last change before FSYNC    (I4)
//	an fdatasync ahead failed    ⇒  every FSYNC fails until one has told it                           (I5)
//	SETATTR of mtime succeeded   ⇒  the backing has it, or it is held, or a later write has made it void
//
// A write moves the backing's mtime by itself, as if the held time had been set before. If it changed its file in the same tick of the
// clock as the one before, or as the file's making, the kernel has no new mtime to save, and the one that it saved last, or found at opening, is right
// again, and held. A held time is set before an fsync, after a flush for a snapshot, before any other change, at close and unmount, and after holdTime.
type syncAhead struct {
	mu struct {
		sync.Mutex
		changes uint64        // of data or size that the backing has
		run     *aheadRun     // whose result no FSYNC has told; run.covers <= changes
		dirty   bool          // a write came after the last FSYNC
		habit   int           // writes in a row that were followed by one fdatasync
		wrote   time.Time     // when the last write came
		held    *backing.Time // mtime that the backing doesn't have yet
		saved   *backing.Time // mtime that the kernel saved last, or the file had when it was opened; nil: not known
		moved   bool          // the backing's mtime moved since, by itself
		closed  bool          // by the last writer: nothing begins any more
	}
}

// aheadRun is an fdatasync of the backing that began before anybody asked for it.
type aheadRun struct {
	covers uint64 // changes when it began
	wait   func() error
}

// written notes a write of cached pages; start begins an fdatasync of the backing.
func (a *syncAhead) written(start func() (wait func() error, err error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.changes++
	a.mu.held, a.mu.moved, a.mu.wrote = nil, true, time.Now()
	if a.mu.dirty || a.mu.run != nil {
		a.mu.habit = 0
	}
	a.mu.dirty = true
	if a.mu.habit < habitual || a.mu.closed {
		return
	}
	wait, err := start()
	if err != nil {
		a.mu.habit = 0 // FSYNC does it then, and tells errors
		return
	}
	a.mu.run = &aheadRun{covers: a.mu.changes, wait: wait}
}

// sync answers FSYNC; full makes the backing durable as if nothing had begun.
func (a *syncAhead) sync(datasync bool, full func() error) error {
	a.mu.Lock()
	if datasync && a.mu.dirty {
		a.mu.habit++
	} else {
		a.mu.habit = 0
	}
	a.mu.dirty = false
	r := a.mu.run
	enough := r != nil && datasync && r.covers == a.mu.changes
	a.mu.Unlock()
	if r != nil {
		// Its error must be told even if it covers too little: full wouldn't find it a second time.
		err := r.wait()
		a.told(r)
		if err != nil || enough {
			return err
		}
	}
	return full()
}

func (a *syncAhead) told(r *aheadRun) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.run == r { // else another FSYNC that waited has told it too
		a.mu.run = nil
	}
}

// hold keeps t if it is what the kernel saves between a write and its fdatasync. A user's own time that is as near to now is kept as well.
func (a *syncAhead) hold(t backing.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := time.Unix(t.Sec, int64(t.Nsec))
	if a.mu.closed || a.mu.run == nil || !a.mu.dirty || m.Before(a.mu.wrote.Add(-holdTime)) || m.After(time.Now()) {
		return false
	}
	a.mu.held, a.mu.saved, a.mu.moved = &t, &t, false
	return true
}

// saves notes an mtime that the backing got from the kernel; nil: another one.
func (a *syncAhead) saves(t *backing.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.saved, a.mu.moved = t, false
}

// finds notes the backing's mtime if none is known yet and nothing has moved it.
func (a *syncAhead) finds(t backing.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.saved == nil && !a.mu.moved {
		a.mu.saved = &t
	}
}

// clean says that the kernel has saved its times, as it does before FSYNC and at the last close. It is true if one is held now.
func (a *syncAhead) clean() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.moved && a.mu.saved != nil {
		a.mu.held, a.mu.moved = a.mu.saved, false
	}
	return a.mu.held != nil
}

// release gives the held time to the caller, who sets it.
func (a *syncAhead) release() *backing.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.mu.held
	a.mu.held = nil
	return t
}

// interrupt notes a change that is no write of cached pages.
func (a *syncAhead) interrupt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.changes++
	a.mu.habit = 0
	a.mu.moved = true
}

// close lets nothing begin any more. It is false if an error is left that an FSYNC must tell.
func (a *syncAhead) close() bool {
	a.mu.Lock()
	a.mu.closed = true
	r := a.mu.run
	a.mu.Unlock()
	return r == nil || r.wait() == nil
}
