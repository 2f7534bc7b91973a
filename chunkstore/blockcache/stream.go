package blockcache

import (
	"context"
	"io"
	"time"

	"graphvol/chunkstore/target"
)

const (
	// maxStreams bounds the objects that are read on at a time; more are read in runs.
	maxStreams = 4
	// aheadBlocks is how far a stream reads beyond the last block that somebody wants.
	aheadBlocks = 16
	// reach is how far beyond a stream's place a block may be that waits for it to come by.
	reach = 32
	// defaultPatience is how long a stream waits for somebody to want more.
	defaultPatience = 2 * time.Second
)

// stream reads an object on, block after block, for whoever wants them. Its fields are guarded by Target.mu, but for those that don't change.
//
// A flight of a block that the stream will bring is marked so, and lands when it comes by, or without data when the stream ends before: then it is
// asked for in another way, which gives the error if there is one.
type stream struct {
	next   int64         // the block that comes next
	wanted int64         // the last one that somebody has asked for
	end    int64         // the block at which it ends
	news   chan struct{} // room for one: wanted has grown

	stop  context.CancelFunc
	ended chan struct{}
}

// streamed has a stream bring a block, one that runs or a new one; false if there is none for it.
func (o *object) streamed(ctx context.Context, block int64, f *flight) bool {
	inner, ok := o.Object.(target.Streamer)
	if !ok {
		return false
	}
	first, end := o.span(ctx, block)
	t := o.cache
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.mu.streams[o.name]; s != nil {
		if key := (blockKey{o.name, block}); block < s.next && t.memory.has(key) { // it has come by between the look for it and the join
			delete(t.mu.flights, key)
			close(f.done)
			return true
		}
		if block < s.next || block >= min(s.next+reach, s.end) {
			return false
		}
		f.streamed = true
		s.want(block)
		return true
	}
	if end-first < 2 || len(t.mu.streams) >= maxStreams {
		return false
	}
	f.streamed = true
	ctx, stop := context.WithCancel(context.Background())
	s := &stream{next: first, wanted: block, end: end, news: make(chan struct{}, 1), stop: stop, ended: make(chan struct{})}
	t.mu.streams[o.name] = s
	o.mine.Store(s)
	go o.run(ctx, s, inner)
	return true
}

// span tells which blocks, first to end, a stream should bring of which somebody wants one: where the block before is known, from that one on; who reads on will
// want those before it as well. An empty one: no stream is worth it.
func (o *object) span(ctx context.Context, block int64) (first, end int64) {
	first = block
	switch {
	case target.IsReadingOn(ctx):
		for first > max(0, block-reach) && !o.cache.known(blockKey{o.name, first - 1}) {
			first--
		}
	case block == 0 || !o.cache.known(blockKey{o.name, block - 1}):
		return block, block
	}
	return first, o.upToKnown(block)
}

// upToKnown gives the first block after one where so much is known already that a new request is cheaper than reading it again, or the end of the object.
func (o *object) upToKnown(block int64) int64 {
	end, known := (o.Size()-1)/blockSize+1, int64(0)
	for b := block + 1; b < end; b++ {
		if known++; !o.cache.has(blockKey{o.name, b}) {
			known = 0
		}
		if known == maxRun {
			return b + 1 - maxRun
		}
	}
	return end - known
}

// want says that somebody waits for a block. Target.mu is held.
func (s *stream) want(block int64) {
	if block > s.wanted {
		s.wanted = block
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
}

// run brings blocks until nobody wants more, the object ends, or something fails.
func (o *object) run(ctx context.Context, s *stream, inner target.Streamer) {
	defer close(s.ended)
	defer s.stop()
	defer o.abandon(s)
	in, err := inner.Stream(ctx, s.next*blockSize)
	if err != nil {
		return
	}
	defer in.Close()
	for o.more(ctx, s) {
		p := o.cache.memory.buffer(o.length(s.next))
		if _, err := io.ReadFull(in, p); err != nil {
			return
		}
		o.bring(s, p)
	}
}

// more waits until the next block is wanted, or nearly. It tells whether it is.
func (o *object) more(ctx context.Context, s *stream) bool {
	var idle <-chan time.Time
	for {
		o.cache.mu.Lock()
		left, near := s.next < s.end, s.next <= s.wanted+aheadBlocks
		o.cache.mu.Unlock()
		if !left || near || ctx.Err() != nil {
			return left && ctx.Err() == nil
		}
		if idle == nil {
			idle = time.After(o.cache.patience)
		}
		select {
		case <-s.news:
		case <-idle:
			return false
		case <-ctx.Done():
		}
	}
}

// bring puts a block in the cache, where those who wait for it find it.
func (o *object) bring(s *stream, p []byte) {
	t, key := o.cache, blockKey{o.name, s.next}
	t.disk.put(key, p)
	t.memory.putOwn(key, p)
	t.mu.Lock()
	defer t.mu.Unlock()
	s.next++
	if f := t.mu.flights[key]; f != nil && f.streamed {
		delete(t.mu.flights, key)
		close(f.done)
	}
}

// abandon ends the stream for those who wait for it.
func (o *object) abandon(s *stream) {
	t := o.cache
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.mu.streams, o.name)
	for key, f := range t.mu.flights {
		if f.streamed && key.object == o.name {
			delete(t.mu.flights, key)
			close(f.done)
		}
	}
}

// Close ends what reads the object on, too.
func (o *object) Close() error {
	if s := o.mine.Load(); s != nil {
		s.stop()
		<-s.ended
	}
	return o.Object.Close()
}
