package erasure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"graphvol/chunkstore/target"
)

// reply is what a shard gave.
type reply struct {
	shard int
	part
}

// units reads n units of a data shard, from unit u on: from the shard, or where it is missing, damaged or slow, from others.
func (o *object) units(ctx context.Context, number int, u, n int64) ([]byte, error) {
	first := o.shards[number]
	if first.suspected() {
		f := o.newFetch(number, u, n)
		return f.one(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	direct := make(chan reply, 1)
	go func() { direct <- reply{number, first.read(ctx, u, n)} }()
	hedge := time.NewTimer(o.t.opts.HedgeAfter)
	defer hedge.Stop()
	select {
	case r := <-direct:
		if r.allGood() {
			return r.data, nil
		}
		if r.data == nil {
			f := o.newFetch(number, u, n)
			f.take(r)
			return f.one(ctx)
		}
		return r.data, o.mend(ctx, number, u, r.part)
	case <-hedge.C:
		for _, m := range first.at {
			o.t.judge(m, errSlow)
		}
		f := o.newFetch(number, u, n)
		f.late = direct
		f.asked[number] = true
		f.pending, f.slow = 1, 1
		return f.one(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// mend replaces the units of a part that aren't good.
func (o *object) mend(ctx context.Context, number int, u int64, p part) error {
	for i := 0; i < len(p.good); {
		if p.good[i] {
			i++
			continue
		}
		end := i + 1
		for end < len(p.good) && !p.good[end] {
			end++
		}
		f := o.newFetch(number, u+int64(i), int64(end-i))
		f.take(reply{number, part{good: make([]bool, end-i), err: p.err}})
		data, err := f.one(ctx)
		if err != nil {
			return err
		}
		copy(p.data[i*unitLen:], data)
		i = end
	}
	return nil
}

// fetch collects the same units of k shards.
type fetch struct {
	o       *object
	number  int // data shard wanted, or -1: all of them
	u, n    int64
	asked   map[int]bool
	parts   map[int]part
	replies chan reply
	late    <-chan reply // of a shard that was asked before
	pending int          // have been asked and have not answered
	slow    int          // of these, how many aren't counted on
}

func (o *object) newFetch(number int, u, n int64) *fetch {
	return &fetch{o: o, number: number, u: u, n: n, asked: make(map[int]bool), parts: make(map[int]part), replies: make(chan reply, len(o.shards))}
}

func (f *fetch) take(r reply) {
	f.asked[r.shard] = true
	f.parts[r.shard] = r.part
}

// one returns the wanted shard's units.
func (f *fetch) one(ctx context.Context) ([]byte, error) {
	if err := f.collect(ctx); err != nil {
		return nil, err
	}
	out := make([][]byte, f.o.h.Data)
	out[f.number] = f.o.t.buffer(f.size())
	err := f.decode(out)
	f.giveBack()
	return out[f.number], err
}

func (f *fetch) giveBack() {
	for _, p := range f.parts {
		f.o.t.giveBack(p.data)
	}
}

func (f *fetch) size() int64 { return min(f.n*unitLen, f.o.h.body-f.u*unitLen) }

// least is how many good shards the unit has that has the fewest; one is enough if it is the wanted one.
func (f *fetch) least() int {
	least := f.o.h.Data
	for u := range int(f.n) {
		if p, ok := f.parts[f.number]; ok && p.good[u] {
			continue
		}
		good := 0
		for _, p := range f.parts {
			if p.good[u] {
				good++
			}
		}
		least = min(least, good)
	}
	return least
}

// collect asks shards until every unit can be decoded.
func (f *fetch) collect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opts := &f.o.t.opts
	hedge := time.NewTimer(opts.HedgeAfter)
	defer hedge.Stop()
	stall := newPatience(opts.StallAfter)
	defer stall.Stop()
	for {
		least := f.least()
		if least >= f.o.h.Data {
			return nil
		}
		for least+f.pending-f.slow < f.o.h.Data {
			if !f.ask(ctx) {
				break
			}
		}
		if f.pending == 0 {
			return f.lost()
		}
		var r reply
		select {
		case r = <-f.replies:
		case r = <-f.late:
		case <-hedge.C:
			f.slow = f.pending
			f.suspectSilent()
			continue
		case <-stall.C:
			if stall.over() {
				return f.lost()
			}
			continue
		case <-ctx.Done():
			return ctx.Err()
		}
		f.take(r)
		f.pending--
		f.slow = min(f.slow, f.pending)
		hedge.Reset(opts.HedgeAfter)
		stall.renew()
	}
}

// ask asks one more shard: suspects last, data before parity.
func (f *fetch) ask(ctx context.Context) bool {
	best := -1
	for i, s := range f.o.shards {
		if !f.asked[i] && (best < 0 || f.o.shards[best].suspected() && !s.suspected()) {
			best = i
		}
	}
	if best < 0 {
		return false
	}
	f.asked[best] = true
	f.pending++
	go func() { f.replies <- reply{best, f.o.shards[best].read(ctx, f.u, f.n)} }()
	return true
}

// suspectSilent notes who has not answered.
func (f *fetch) suspectSilent() {
	for i := range f.asked {
		if _, ok := f.parts[i]; !ok {
			for _, m := range f.o.shards[i].at {
				f.o.t.judge(m, errSlow)
			}
		}
	}
}

// lost says what is missing.
func (f *fetch) lost() error {
	e := &LostError{Name: f.o.name}
	if f.o.h.kind == kindShard {
		e.Layout = f.o.h.Layout
	}
	gone, passing := 0, 0
	for i, s := range f.o.shards {
		p, ok := f.parts[i]
		switch {
		case !ok:
			p.err = errSlow
		case p.allGood():
			continue
		}
		e.Missing = append(e.Missing, s.missing(p.err))
		if len(s.at) > 0 && !s.guess && errors.Is(p.err, fs.ErrNotExist) {
			gone++
		}
		if len(s.at) > 0 && !permanent(p.err) {
			passing++
		}
	}
	whole := len(f.o.shards) - len(e.Missing)
	switch need := f.o.h.Data; {
	case whole+passing >= need:
		e.class = target.ErrUnavailable
	case whole+passing+gone >= need:
		e.class = fs.ErrNotExist // all listed when the object was opened
	}
	return e
}

// decode puts together the data shards for which out has memory.
func (f *fetch) decode(out [][]byte) error {
	o := f.o
	codec, err := o.t.codec(o.h.Layout)
	if err != nil {
		return err
	}
	wanted := make([]bool, o.h.Data)
	for i := range wanted {
		wanted[i] = out[i] != nil
	}
	for u := range int(f.n) {
		lo := u * unitLen
		hi := min(lo+unitLen, int(f.size()))
		unit := make([][]byte, o.h.total())
		have := 0
		for _, i := range f.numbers() {
			if p := f.parts[i]; p.good[u] && (have < o.h.Data || i == f.number) {
				have++
				if o.h.kind != kindShard {
					i = 0 // every copy is the data shard
				}
				unit[i] = p.data[lo:hi]
			}
		}
		for i, want := range wanted {
			switch {
			case want && unit[i] != nil:
				copy(out[i][lo:hi], unit[i])
			case want:
				unit[i] = out[i][lo:lo:hi]
			}
		}
		if err := codec.ReconstructSome(unit, wanted); err != nil {
			return fmt.Errorf("object %s: decode: %w", o.name, err)
		}
	}
	return nil
}

// numbers are the shards that have answered, data before parity.
func (f *fetch) numbers() []int {
	var out []int
	for i := range f.parts {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}
