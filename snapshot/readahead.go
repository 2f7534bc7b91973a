package snapshot

import (
	"context"
	"sync"

	"graphvol/snapshot/tree"
)

// Bounds of reading ahead: segments ahead of a reader, segments in work at a time, files whose position is remembered.
const (
	aheadSegments = 2
	aheadWorkers  = 2
	aheadFiles    = 256
)

// readAhead fetches and verifies the next segments of files that are read in order, in the background.
type readAhead struct {
	slots   chan struct{}
	running sync.WaitGroup

	mu sync.Mutex
	at map[fileOf]uint64 // the segment that was read last
}

// fileOf is a file in a snapshot.
type fileOf struct {
	snapshot string
	ino      uint64
}

func newReadAhead() *readAhead {
	return &readAhead{slots: make(chan struct{}, aheadWorkers), at: make(map[fileOf]uint64)}
}

// next notes that a segment is read, and tells whether it is the one behind the segment read last.
func (a *readAhead) next(f fileOf, seg uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	last, ok := a.at[f]
	if ok && last == seg {
		return false
	}
	if !ok && len(a.at) >= aheadFiles {
		clear(a.at)
	}
	a.at[f] = seg
	return ok && seg == last+1
}

// start runs fn in the background unless too much runs already.
func (a *readAhead) start(fn func()) {
	select {
	case a.slots <- struct{}{}:
	default:
		return
	}
	a.running.Go(func() {
		defer func() { <-a.slots }()
		fn()
	})
}

// readAhead begins to fetch what a reader of a segment will probably want next.
func (rd *Reader) readAhead(ctx context.Context, rec *tree.Record, seg uint64) {
	if !rd.repo.ahead.next(fileOf{rd.snap.ID, rec.Ino}, seg) {
		return
	}
	ctx = context.WithoutCancel(ctx)
	for k := seg + 1; k <= seg+aheadSegments && int64(k)*SegmentSize < rec.Size; k++ {
		rd.repo.ahead.start(func() { rd.fetch(ctx, rec, k) })
	}
}

// fetch makes a segment ready to be read. Errors will come again when it is.
func (rd *Reader) fetch(ctx context.Context, rec *tree.Record, seg uint64) {
	val, ok, err := rd.repo.nodes.Get(ctx, rec.Content, seg, "")
	if err != nil || !ok {
		return
	}
	s, err := tree.DecodeSegment(val)
	if err != nil {
		return
	}
	if id, blocks, whole := s.Whole(); whole {
		if done, err := rd.readLive(ctx, rec, liveSegment{seg, val, id, blocks}, nil, 0); done || err != nil {
			return
		}
	}
	for _, id := range s.Chunks() {
		if _, err := rd.repo.chunks.get(ctx, id); err != nil {
			return
		}
	}
}
