package erasure

import (
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/klauspost/reedsolomon"

	"graphvol/chunkstore/target"
)

const (
	stripeLen   = 2 << 20 // of all shards together, about
	keepStripes = 8
	// defaultPace is how long a writer waits for others that don't move.
	defaultPace = 200 * time.Millisecond
)

// stripes computes the shards of one object while several writers read them. A stripe is the same part of every shard. The last few are kept, and
// writers wait for each other so far that these do: so the object is read and encoded once, in bounded memory. A writer that falls behind all the same, or
// begins anew, has what it needs computed again.
type stripes struct {
	layout Layout
	codec  reedsolomon.Encoder
	body   int64 // S
	step   int64 // length of a stripe in each shard, of whole units
	src    filler
	pace   time.Duration // how long a writer that is ahead waits for those behind, while none of them moves

	mu struct {
		sync.Mutex
		cache map[int64]*stripe
		free  [][][]byte
		built []bool        // by stripe: its checksums are in sums
		pos   []int64       // by writer: the last stripe it has asked for; no more waited for if math.MaxInt64
		moved chan struct{} // closed when a writer moves
	}
	sums [][]uint32 // by shard and unit
}

type stripe struct {
	refs   int // guarded by stripes.mu
	done   chan struct{}
	shards [][]byte
	err    error
}

// filler reads what stripes are made of.
type filler struct {
	all func(off int64, data [][]byte) error        // the same part of each data shard
	one func(number int, off int64, p []byte) error // a part of one; nil if that is no cheaper
}

func newStripes(h header, codec reedsolomon.Encoder, writers int, src filler, pace time.Duration) *stripes {
	s := &stripes{layout: h.Layout, codec: codec, body: h.body, src: src, pace: pace}
	s.step = max(1, stripeLen/int64(h.total())/unitLen) * unitLen
	s.mu.cache = make(map[int64]*stripe)
	s.mu.built = make([]bool, (h.body+s.step-1)/s.step)
	s.mu.pos = make([]int64, writers)
	s.mu.moved = make(chan struct{})
	for range h.total() {
		s.sums = append(s.sums, make([]uint32, units(h.body)))
	}
	return s
}

// readBody reads a part of a shard's body.
func (s *stripes) readBody(writer, number int, p []byte, off int64) error {
	for len(p) > 0 {
		w := off / s.step
		n := min(int64(len(p)), (w+1)*s.step-off)
		st, ok := s.acquire(writer, number < s.layout.Data, w)
		if ok {
			err := st.err
			if err == nil {
				copy(p[:n], st.shards[number][off-w*s.step:])
			}
			s.release(st)
			if err != nil {
				return err
			}
		} else if err := s.src.one(number, off, p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// table is a shard's table of checksums.
func (s *stripes) table(number int) ([]byte, error) {
	for w := range s.mu.built {
		s.mu.Lock()
		built := s.mu.built[w]
		s.mu.Unlock()
		if built {
			continue
		}
		st, _ := s.acquire(-1, false, int64(w))
		err := st.err
		s.release(st)
		if err != nil {
			return nil, err
		}
	}
	return encodeTable(s.sums[number]), nil
}

// acquire returns stripe w, or false if reading from the source is better: a data shard's part that was computed and dropped.
func (s *stripes) acquire(writer int, data bool, w int64) (*stripe, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.move(writer, w)
	for {
		if st := s.mu.cache[w]; st != nil {
			st.refs++
			s.mu.Unlock()
			<-st.done
			s.mu.Lock()
			return st, true
		}
		if s.mu.built[w] {
			if data && s.src.one != nil {
				return nil, false
			}
			break
		}
		if writer < 0 || !s.ahead(writer, w) {
			break
		}
		moved := s.mu.moved
		s.mu.Unlock()
		late := time.NewTimer(s.pace)
		select {
		case <-moved:
			s.mu.Lock()
		case <-late.C:
			s.mu.Lock()
			s.leaveBehind(w)
		}
		late.Stop()
	}
	return s.build(w), true
}

// build computes a stripe. The lock is held before and after.
func (s *stripes) build(w int64) *stripe {
	st := &stripe{refs: 1, done: make(chan struct{}), shards: s.room(w)}
	s.mu.cache[w] = st
	s.mu.Unlock()
	st.err = s.compute(w, st.shards)
	s.mu.Lock()
	if st.err != nil {
		delete(s.mu.cache, w)
	} else {
		s.mu.built[w] = true
	}
	close(st.done)
	return st
}

func (s *stripes) compute(w int64, shards [][]byte) error {
	if err := s.src.all(w*s.step, shards[:s.layout.Data]); err != nil {
		return err
	}
	if s.layout.Parity > 0 {
		if err := s.codec.Encode(shards); err != nil {
			return fmt.Errorf("encode: %w", err)
		}
	}
	s.mu.Lock()
	built := s.mu.built[w]
	s.mu.Unlock()
	if built {
		return nil
	}
	for i, p := range shards {
		for u := 0; u < len(p); u += unitLen {
			s.sums[i][w*s.step/unitLen+int64(u/unitLen)] = checksum(p[u:min(u+unitLen, len(p))])
		}
	}
	return nil
}

// room finds memory for stripe w, and drops the oldest of those that nobody reads.
func (s *stripes) room(w int64) [][]byte {
	for len(s.mu.cache) >= keepStripes {
		oldest := int64(math.MaxInt64)
		for i, st := range s.mu.cache {
			if st.refs == 0 && i < oldest {
				oldest = i
			}
		}
		if oldest == math.MaxInt64 {
			break
		}
		s.mu.free = append(s.mu.free, s.mu.cache[oldest].shards)
		delete(s.mu.cache, oldest)
	}
	var shards [][]byte
	if n := len(s.mu.free); n > 0 {
		shards, s.mu.free = s.mu.free[n-1], s.mu.free[:n-1]
	} else {
		all := make([]byte, int64(s.layout.total())*min(s.step, s.body))
		for i := range s.layout.total() {
			size := len(all) / s.layout.total()
			shards = append(shards, all[i*size:(i+1)*size])
		}
	}
	for i := range shards {
		shards[i] = shards[i][:min(s.step, s.body-w*s.step)]
	}
	return shards
}

func (s *stripes) release(st *stripe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.refs--
}

// move notes where a writer is.
func (s *stripes) move(writer int, w int64) {
	if writer < 0 || s.mu.pos[writer] >= w {
		return
	}
	s.mu.pos[writer] = w
	close(s.mu.moved)
	s.mu.moved = make(chan struct{})
}

// finish says that nobody is to wait for a writer any more.
func (s *stripes) finish(writer int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.move(writer, math.MaxInt64)
}

func (s *stripes) ahead(writer int, w int64) bool {
	for i, pos := range s.mu.pos {
		if i != writer && pos+keepStripes <= w && pos != math.MaxInt64 {
			return true
		}
	}
	return false
}

func (s *stripes) leaveBehind(w int64) {
	for i, pos := range s.mu.pos {
		if pos != math.MaxInt64 && pos+keepStripes <= w {
			s.mu.pos[i] = math.MaxInt64
		}
	}
}

// fromSource fills from an object as it is put.
func fromSource(src target.Source, body int64) filler {
	one := func(number int, off int64, p []byte) error {
		at := int64(number)*body + off
		n := max(0, min(int64(len(p)), src.Size()-at))
		clear(p[n:])
		if n == 0 {
			return nil
		}
		if got, err := src.ReadAt(p[:n], at); int64(got) < n {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read the source at %d: %w", at, err)
		}
		return nil
	}
	return filler{one: one, all: func(off int64, data [][]byte) error {
		for i, p := range data {
			if err := one(i, off, p); err != nil {
				return err
			}
		}
		return nil
	}}
}
