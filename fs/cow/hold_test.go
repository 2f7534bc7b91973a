package cow

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"
)

const hour = time.Hour // a bound that doesn't pass

func (w *world) hold(bound time.Duration) *Held {
	w.t.Helper()
	h, err := w.v.Hold(context.Background(), bound)
	w.must(err)
	return h
}

// startWrite begins a write, and returns once it waits at the gate; done is closed after it has returned.
func (w *world) startWrite(ino uint64, p []byte) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		w.write(ino, p, 0)
	}()
	return done
}

func returned(done <-chan struct{}, within time.Duration) bool {
	select {
	case <-done:
		return true
	case <-time.After(within):
		return false
	}
}

func TestHoldKeepsChangesOutUntilTheCut(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, blockSize))
	h := w.hold(hour)
	done := w.startWrite(f, fill(2, blockSize))
	if returned(done, 30*time.Millisecond) {
		t.Fatal("a write passed the closed gate")
	}
	e, held, err := h.Cut()
	w.must(err)
	<-done
	if held < 30*time.Millisecond {
		t.Errorf("held for %v, and the write waited longer", held)
	}
	im, err := w.seal(e)
	w.must(err)
	if got := im.inodes[f].bytes(); !bytes.Equal(got, fill(1, blockSize)) {
		t.Error("the snapshot has what was written after the gate closed")
	}
	if got := w.snapshot().inodes[f].bytes(); !bytes.Equal(got, fill(2, blockSize)) {
		t.Error("the next snapshot lacks it")
	}
	if h.Release(); w.v.gate.inside.Load() != 0 {
		t.Error("Release after the cut has touched the gate")
	}
}

func TestHoldEndsWithItsBound(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, blockSize))
	w.snapshot()
	h := w.hold(20 * time.Millisecond)
	w.write(f, fill(2, blockSize), 0) // waits for the bound
	if _, held, err := h.Cut(); !errors.Is(err, ErrHoldOver) || held < 20*time.Millisecond {
		t.Fatalf("cut after the bound: %v, held %v", err, held)
	}
	epoch := w.v.Epoch()
	if got := w.snapshot().inodes[f].bytes(); !bytes.Equal(got, fill(2, blockSize)) {
		t.Error("the snapshot after a hold that was over lacks a write")
	}
	if got := w.v.Epoch(); got != epoch+1 {
		t.Errorf("epoch %d after %d: a hold that was over has ended one", got, epoch)
	}
}

func TestReleasedHoldEndsNothing(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, blockSize))
	epoch := w.v.Epoch()
	h := w.hold(hour)
	h.Release()
	w.write(f, fill(2, blockSize), 0)
	if _, _, err := h.Cut(); !errors.Is(err, ErrHoldReleased) {
		t.Errorf("cut after release: %v", err)
	}
	if w.v.Epoch() != epoch {
		t.Error("a released hold has ended an epoch")
	}
	w.close()
	w.open(false)
	if got := w.snapshot().inodes[f].bytes(); !bytes.Equal(got, fill(2, blockSize)) {
		t.Error("the snapshot lacks a write")
	}
}

func TestHoldGivesUpWithItsContext(t *testing.T) {
	w := newWorld(t)
	h := w.hold(hour)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.v.Hold(ctx, hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second hold: %v", err)
	}
	h.Release()
	w.v.gate.enter() // a request that doesn't end
	ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.v.Hold(ctx, hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a hold with a request in flight: %v", err)
	}
	w.v.gate.leave()
	w.hold(hour).Release()
}

// Whichever of bound, cut and release is first, it is the only one, and the gate is open once.
func TestHoldEndsOnce(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, blockSize))
	cuts := 0
	for i := range 200 {
		h := w.hold(time.Duration(1+i%7) * 100 * time.Microsecond)
		var wg sync.WaitGroup
		var e *Ended
		wg.Go(func() {
			if i%3 == 0 {
				h.Release()
			}
		})
		wg.Go(func() { w.write(f, fill(byte(i), blockSize), 0) })
		wg.Go(func() {
			time.Sleep(time.Duration(i%5) * 100 * time.Microsecond) // moves the cut around the bound
			e, _, _ = h.Cut()
		})
		wg.Wait()
		if e != nil {
			cuts++
			_, err := w.seal(e)
			w.must(err)
		}
	}
	if cuts == 0 || cuts == 200 {
		t.Errorf("%d of 200 were cut: nothing raced", cuts)
	}
	if n := w.v.gate.inside.Load(); n != 0 {
		t.Errorf("the gate has %d inside", n)
	}
}

// What Ready has made is used by the next barrier, or removed; a server that dies with it loses nothing.
func TestReady(t *testing.T) {
	w := newWorld(t)
	f := w.create("f", fill(1, blockSize))
	ready := func() *running {
		w.must(w.v.Ready(t.Context()))
		return w.v.spare
	}
	there := func(r *running) bool {
		_, err := os.Stat(w.v.marker(r.number).path(markerLive))
		return err == nil
	}
	spare := ready()
	if ready() != spare || spare.number != w.v.run.Load().number+1 || !there(spare) {
		t.Fatalf("epoch %d is made for after %d", spare.number, w.v.run.Load().number)
	}
	w.write(f, fill(2, blockSize), 0)
	if got := w.snapshot().inodes[f].bytes(); !bytes.Equal(got, fill(2, blockSize)) || w.v.run.Load() != spare {
		t.Error("the barrier has begun another epoch than was made for it")
	}
	for n, takeover := range []bool{true, false} {
		ready()
		want := fill(byte(3+n), blockSize)
		w.write(f, want, 0)
		w.die()
		w.open(takeover)
		if got := w.snapshot().inodes[f].bytes(); !bytes.Equal(got, want) {
			t.Errorf("what was written after Ready is lost with the server (taken over: %v)", takeover)
		}
	}
	spare = ready()
	w.close()
	if there(spare) {
		t.Error("it is left after closing")
	}
}
