package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"time"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/fs/browse"
	"graphvol/remote"
	"graphvol/snapshot"
)

// freshBound is how long somebody who lists the snapshots waits for new ones; they come later then.
const freshBound = 5 * time.Second

// storeSource shows the snapshots of a copy that another machine writes to. The newest head is looked at when somebody asks, not more often than every so often.
type storeSource struct {
	catalogue
	copy    *remote.Copy
	log     *slog.Logger
	every   time.Duration
	changed func() error // tells the kernel
	behind  bool         // the index isn't what the head says; the look's that runs

	ctx context.Context // ends with close
	end context.CancelFunc
	all sync.WaitGroup

	mu struct {
		sync.Mutex
		looked  time.Time     // when the last look began, while it runs, or ended
		looking chan struct{} // closed when the look that runs has ended; nil: none
		failed  bool          // the last look has
		bytes   int64         // of the store
	}
}

var _ browse.Source = (*storeSource)(nil)

func newStoreSource(s *storeServer) *storeSource {
	f := &storeSource{catalogue: catalogue{s.repo}, copy: s.copy, log: s.log, every: s.opts.Refresh}
	f.ctx, f.end = context.WithCancel(context.Background())
	f.mu.looked = time.Now()
	return f
}

// close ends a look that runs.
func (f *storeSource) close() {
	f.end()
	f.all.Wait()
}

// Fresh implements browse.Source.
func (f *storeSource) Fresh(cancel <-chan struct{}) bool {
	looking, began := f.look()
	if looking == nil {
		return false
	}
	limit := time.NewTimer(freshBound - time.Since(began))
	defer limit.Stop()
	select {
	case <-looking:
		return true
	case <-limit.C:
	case <-cancel:
	}
	return false
}

// look begins a look at the newest head, or finds one that runs, and when it began; nil: it is too early.
func (f *storeSource) look() (looking chan struct{}, began time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.looking != nil {
		return f.mu.looking, f.mu.looked
	}
	if time.Since(f.mu.looked) < f.every || f.ctx.Err() != nil {
		return nil, began
	}
	f.mu.looking, f.mu.looked = make(chan struct{}), time.Now()
	f.all.Add(1)
	go f.refresh(f.mu.looking)
	return f.mu.looking, f.mu.looked
}

// refresh looks at the newest head. The kernel is told last: it may wait for the requests that wait for this.
func (f *storeSource) refresh(done chan struct{}) {
	defer f.all.Done()
	changed, err := f.copy.Refresh(f.ctx)
	if changed = changed || f.behind; err == nil && changed {
		err = f.update(f.ctx)
		f.behind = err != nil
	}
	f.mu.Lock()
	first := err != nil && !f.mu.failed
	f.mu.failed, f.mu.looking = err != nil, nil
	f.mu.looked = time.Now()
	f.mu.Unlock()
	close(done)
	if first && f.ctx.Err() == nil {
		f.log.Error("the newest snapshots can't be listed: what was known is shown", "err", err)
	}
	if !changed {
		return
	}
	if err := f.changed(); err != nil {
		f.log.Warn("the snapshots are shown late", "err", err)
	}
}

// update makes the index what the copy's head says.
func (f *storeSource) update(ctx context.Context) error {
	head := f.copy.Newest().Sequence
	u, err := f.Repo.Update(ctx)
	if err != nil {
		return err
	}
	if len(u.Added)+len(u.Deleted) > 0 {
		f.log.Info("the copy has changed", "head", head, "new", u.Added, "deleted", u.Deleted, "packs", u.Packs)
	}
	f.mu.Lock()
	f.mu.bytes = u.StoreBytes
	f.mu.Unlock()
	return f.Index().PutMeta(metaSeenHead, binary.BigEndian.AppendUint64(nil, head))
}

func (f *storeSource) storeBytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.bytes
}

// Away implements browse.Source: outage has told it.
func (f *storeSource) Away(err error) bool { return chunkstore.Passing(err) }

var _ browse.Catalogue = catalogue{(*snapshot.Repo)(nil)}

// outagePause is how long after an outage that was logged the next one isn't: of a spread copy, some objects can be read while others can't.
const outagePause = time.Minute

// outage notices when a copy goes away and comes back, so that the log has two lines, however many reads fail.
type outage struct {
	log *slog.Logger
	mu  struct {
		sync.Mutex
		since  time.Time // zero: it is there
		err    error
		told   bool // the log says that it is away
		logged time.Time
	}
}

// saw takes the outcome of a request.
func (o *outage) saw(err error) {
	away := errors.Is(err, target.ErrUnavailable) || errors.Is(err, target.ErrDenied)
	if err != nil && !away {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case away && o.mu.since.IsZero():
		o.mu.since, o.mu.err = time.Now(), err
		if o.mu.told = time.Since(o.mu.logged) >= outagePause; o.mu.told {
			o.mu.logged = time.Now()
			o.log.Error("the copy can't be read: what isn't in the cache is an I/O error until it is back", "err", err)
		}
	case !away && !o.mu.since.IsZero():
		if o.mu.told {
			o.log.Info("the copy is back", "after", time.Since(o.mu.since).Round(time.Second).String())
		}
		o.mu.since, o.mu.err = time.Time{}, nil
	}
}

// problem says what is wrong with the copy; empty: nothing.
func (o *outage) problem() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.err == nil {
		return ""
	}
	return "the copy can't be read, only what is in the cache: " + Message(o.mu.err)
}
