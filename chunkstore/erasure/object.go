package erasure

import (
	"context"
	"errors"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"graphvol/chunkstore/target"
)

// object is an object being read: as shards, or as copies, each of which stands for the only data shard.
type object struct {
	t      *Target
	name   string
	h      header // without the number
	shards []*shard
	places []int // of copies and shards, as they should be
}

var _ target.Object = (*object)(nil)

func (t *Target) shardsObject(f *found, v version) (*object, error) {
	if _, err := t.codec(v.Layout); err != nil {
		return nil, err
	}
	o := &object{t: t, name: f.name, h: newHeader(f.name, v, 0, kindShard), places: order(t.ids, f.name)}
	for i, at := range f.shards[v] {
		at = slices.Clone(at)
		if i < len(o.places) { // the right place first
			slices.SortStableFunc(at, func(a, b int) int { return boolToInt(a != o.places[i]) - boolToInt(b != o.places[i]) })
		}
		s := t.newShard(f.name, shardName(f.name, v, i), i, at)
		s.want = v
		if len(at) == 0 && i < len(o.places) && f.errs[o.places[i]] != nil {
			s.at, s.guess = o.places[i:i+1], true
		}
		o.shards = append(o.shards, s)
	}
	return o, nil
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// pickCopy opens the copies of the object that was found: the newest, or of claims the one that a majority of the members has.
func (t *Target) pickCopy(ctx context.Context, f *found) (*object, error) {
	var who []int
	for _, m := range t.everywhere(f.name) {
		if slices.Contains(f.copies, m) {
			who = append(who, m)
		}
	}
	all := make([]*shard, len(who))
	for i, m := range who {
		all[i] = t.newShard(f.name, f.name, i, []int{m})
		all[i].copy = true
	}
	enough := func(a *answers[header]) bool {
		return a.answered() >= max(1, len(who)-f.silentAtMost(t.layout.Parity))
	}
	a, err := ask(ctx, t, who, true, enough, func(ctx context.Context, pos int) (header, error) {
		o, err := all[pos].open(ctx)
		if err != nil {
			return header{}, err
		}
		return o.head, nil
	})
	var o *object
	if err == nil {
		o, err = t.elect(f, all, a)
	}
	for _, s := range all {
		if o == nil || !slices.Contains(o.shards, s) {
			s.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// silentAtMost is how many of those that have copies need not be waited for, if max members may be out of reach.
func (f *found) silentAtMost(limit int) int { return max(0, limit-f.silent()) }

// elect decides between copies that differ.
func (t *Target) elect(f *found, all []*shard, a *answers[header]) (*object, error) {
	lost := &LostError{Name: f.name}
	votes := make(map[header]int)
	var first, winner *header
	silent := f.silent()
	for i, err := range a.errs {
		if err != nil {
			lost.Missing = append(lost.Missing, all[i].missing(err))
			if !permanent(err) {
				silent++
			}
			continue
		}
		h := &a.vals[i]
		if first == nil {
			first = h
		}
		votes[*h]++
		if h.kind == kindCopy && (winner == nil || h.gen > winner.gen) {
			winner = h
		}
	}
	for h, n := range votes {
		if h.kind == kindClaim && n >= t.majority() && (winner == nil || h.gen > winner.gen) {
			winner = &h
		}
	}
	switch {
	case winner != nil:
	case len(votes) == 1, len(votes) > 1 && silent == 0:
		winner = first
	default:
		if silent > 0 {
			lost.class = target.ErrUnavailable
		}
		return nil, lost
	}
	o := &object{t: t, name: f.name, h: *winner, places: order(t.ids, f.name)}
	for i, h := range a.vals {
		if a.errs[i] == nil && h == *winner {
			o.shards = append(o.shards, all[i])
		}
	}
	for i, err := range a.errs {
		if err != nil && !permanent(err) {
			o.guessCopy(all[i].at[0])
		}
	}
	for _, m := range t.everywhere(f.name) {
		if f.errs[m] != nil {
			o.guessCopy(m)
		}
	}
	return o, nil
}

// guessCopy adds a copy on a member that has not answered, as a last resort.
func (o *object) guessCopy(member int) {
	s := o.t.newShard(o.name, o.name, len(o.shards), []int{member})
	s.copy, s.guess, s.head = true, true, &o.h
	o.shards = append(o.shards, s)
}

// Size is the object's length.
func (o *object) Size() int64 { return o.h.length }

// Close closes what was opened.
func (o *object) Close() error {
	var errs []error
	for _, s := range o.shards {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// readUnits is how many units are read at once, so that memory is bounded for wide layouts too.
func (o *object) readUnits() int64 { return int64(min(16, max(1, 64/o.h.Data))) }

// ReadAt reads from the data shards that have the range, or from others what these can't give.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	n := int(max(0, min(int64(len(p)), o.h.length-off)))
	if n > 0 {
		if err := o.readRange(ctx, p[:n], off); err != nil {
			return 0, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (o *object) readRange(ctx context.Context, p []byte, off int64) error {
	number := int(off / o.h.body)
	if off+int64(len(p)) <= int64(number+1)*o.h.body {
		return o.readShard(ctx, number, p, off-int64(number)*o.h.body)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for len(p) > 0 {
		number := int(off / o.h.body)
		part := p[:min(int64(len(p)), int64(number+1)*o.h.body-off)]
		from := off - int64(number)*o.h.body
		g.Go(func() error { return o.readShard(ctx, number, part, from) })
		p, off = p[len(part):], off+int64(len(part))
	}
	return g.Wait()
}

// readShard reads from the body of a data shard.
func (o *object) readShard(ctx context.Context, number int, p []byte, off int64) error {
	for len(p) > 0 {
		u := off / unitLen
		n := min(units(off+int64(len(p)))-u, o.readUnits())
		data, err := o.units(ctx, number, u, n)
		if err != nil {
			return err
		}
		done := copy(p, data[off-u*unitLen:])
		o.t.giveBack(data)
		p, off = p[done:], off+int64(done)
	}
	return nil
}
