package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
)

// intentLog keeps the intents of all epochs, in memory and durably. One goroutine writes; whoever adds intents
// while it is syncing shares the next sync.
type intentLog struct {
	log     *slog.Logger
	wake    chan struct{} // holds one token while there is something to write
	stopped chan struct{} // closed when the goroutine has ended

	mu struct {
		sync.Mutex
		closed bool
		next   *intentGroup // what the goroutine takes next; nil: nothing
		file   *intentFile
		free   []uint32                       // frames; the least numbers are taken first
		frames map[uint64][]uint32            // frames in use, by epoch
		known  map[uint64]map[Intent]struct{} // the durable ones, by epoch
		drops  uint64                         // counts calls of drop
		syncs  uint64                         // counts groups
	}
}

// intentGroup is what one sync makes durable.
type intentGroup struct {
	added map[uint64][]Intent
	done  chan struct{} // closed after err is set
	err   error
}

// openIntentLog opens the log, and makes it if fresh. Otherwise a missing or unreadable log means that
// anything may have been announced in it.
func openIntentLog(path string, fresh bool, log *slog.Logger) (*intentLog, error) {
	l := &intentLog{log: log, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	l.mu.frames = make(map[uint64][]uint32)
	l.mu.known = make(map[uint64]map[Intent]struct{})
	file, lost, damaged, err := openIntentFile(path, fresh, func(frame, epoch uint64, in []Intent) {
		l.mu.frames[epoch] = append(l.mu.frames[epoch], uint32(frame))
		l.rememberLocked(epoch, in)
	})
	if err != nil {
		return nil, err
	}
	l.mu.file = file
	l.findFreeLocked()
	if damaged > 0 {
		log.Info("intents: unfinished writes ignored", "frames", damaged)
	}
	if lost && !fresh {
		log.Warn("intents: the file is missing or damaged, so the next snapshot must compare everything", "path", path)
		err = l.storeLocked(anyEpoch, []Intent{{Kind: IntentAll}})
		if err = errors.Join(err, file.sync()); err != nil {
			file.f.Close()
			return nil, err
		}
		l.rememberLocked(anyEpoch, []Intent{{Kind: IntentAll}})
	}
	go l.run()
	return l, nil
}

// findFreeLocked lists the frames that are in no use.
func (l *intentLog) findFreeLocked() {
	used := make(map[uint32]bool)
	for _, frames := range l.mu.frames {
		for _, n := range frames {
			used[n] = true
		}
	}
	l.mu.free = l.mu.free[:0]
	for n := l.mu.file.frames; n > 0; n-- {
		if !used[n-1] {
			l.mu.free = append(l.mu.free, n-1)
		}
	}
}

func (l *intentLog) rememberLocked(epoch uint64, in []Intent) {
	m := l.mu.known[epoch]
	if m == nil {
		m = make(map[Intent]struct{})
		l.mu.known[epoch] = m
	}
	for _, n := range in {
		m[n] = struct{}{}
	}
}

// enqueue returns the group that makes in durable, nil if all of it is.
func (l *intentLog) enqueue(epoch uint64, in []Intent) (*intentGroup, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil, ErrClosed
	}
	known := l.mu.known[epoch]
	g := l.mu.next
	joined := false
	for _, n := range in {
		if _, ok := known[n]; ok {
			continue
		}
		if g == nil {
			g = &intentGroup{added: make(map[uint64][]Intent), done: make(chan struct{})}
			l.mu.next = g
			l.wake <- struct{}{} // never blocks: the token is taken before the group is
		}
		g.added[epoch] = append(g.added[epoch], n)
		joined = true
	}
	if !joined {
		return nil, nil
	}
	return g, nil
}

// run writes groups until the log is closed.
func (l *intentLog) run() {
	defer close(l.stopped)
	for range l.wake {
		l.mu.Lock()
		g := l.mu.next
		l.mu.next = nil
		var err error
		for epoch, in := range g.added {
			err = errors.Join(err, l.storeLocked(epoch, in))
		}
		l.mu.syncs++
		file, drops := l.mu.file, l.mu.drops
		l.mu.Unlock()

		if err == nil {
			err = file.sync()
		}
		if err != nil {
			g.err = fmt.Errorf("storing intents: %w", err)
			l.log.Error("intents cannot be stored", "err", err)
		} else {
			l.mu.Lock()
			for epoch, in := range g.added {
				if l.mu.drops == drops { // else what was written may be cleared again
					l.rememberLocked(epoch, in)
				}
			}
			l.mu.Unlock()
		}
		close(g.done)
	}
}

// storeLocked writes intents to free frames. They are durable after a sync.
func (l *intentLog) storeLocked(epoch uint64, in []Intent) error {
	for part := range slices.Chunk(in, intentsPerFrame) {
		if len(l.mu.free) == 0 {
			if err := l.mu.file.grow(); err != nil {
				return err
			}
			l.findFreeLocked()
		}
		last := len(l.mu.free) - 1
		frame := l.mu.free[last]
		if err := l.mu.file.write(frame, epoch, part); err != nil {
			return err
		}
		l.mu.free = l.mu.free[:last]
		l.mu.frames[epoch] = append(l.mu.frames[epoch], frame)
	}
	return nil
}

// drop forgets the intents of epochs. An error isn't told to the caller: what comes back says too much, no more.
func (l *intentLog) drop(epochs func(epoch uint64) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return
	}
	l.mu.drops++
	for n, frames := range l.mu.frames {
		if !epochs(n) {
			continue
		}
		for _, frame := range frames {
			if err := l.mu.file.clear(frame); err != nil {
				l.log.Warn("intents: an old one cannot be cleared", "epoch", n, "err", err)
				return
			}
			l.mu.free = append(l.mu.free, frame)
		}
		delete(l.mu.frames, n)
		delete(l.mu.known, n)
	}
	slices.SortFunc(l.mu.free, func(a, b uint32) int { return cmp.Compare(b, a) })
}

// close stores what waits, ends the goroutine and closes the file.
func (l *intentLog) close() error {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return nil
	}
	l.mu.closed = true
	close(l.wake)
	l.mu.Unlock()
	<-l.stopped
	return l.mu.file.f.Close()
}

// AddIntents announces changes. They are durable when it returns nil; concurrent callers share a sync. Without
// error it costs nothing to announce again what was announced in that epoch. If ctx ends first, its error is
// returned, and the intents become durable or not.
func (db *DB) AddIntents(ctx context.Context, epoch uint64, in ...Intent) error {
	if epoch == 0 || epoch == anyEpoch {
		return fmt.Errorf("storing intents: %d is no epoch", epoch)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	g, err := db.intents.enqueue(epoch, in)
	if g == nil {
		return err
	}
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Intents returns what was announced in an epoch, ordered by inode, kind and region. It has an IntentAll if intents were lost.
func (db *DB) Intents(epoch uint64) ([]Intent, error) {
	l := db.intents
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil, ErrClosed
	}
	all := slices.Collect(maps.Keys(l.mu.known[epoch]))
	for n := range l.mu.known[anyEpoch] {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b Intent) int {
		return cmp.Or(cmp.Compare(a.Ino, b.Ino), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Region, b.Region), cmp.Compare(a.Gen, b.Gen))
	})
	return all, nil
}

// DropIntents forgets what was announced in epochs up to last, when a complete snapshot has ended that one (a crash may have kept
// Complete from it, or a power cut brought them back), or their dirty maps are stored. It isn't durable by itself either.
func (db *DB) DropIntents(last uint64) {
	db.intents.drop(func(n uint64) bool { return n <= last })
}
