package erasure

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"
)

// Report says in what state an object is.
type Report struct {
	Name   string
	Length int64
	Layout Layout  // zero: the object is stored as copies
	Parts  []Part  // those that should be there, and others of the same object that are
	Stray  int     // files of former versions, of Puts that failed, and in wrong places
	Full   bool    // nothing is missing, damaged, stray, or in another layout than the target's
	places []place // of those that aren't good
}

// Part is a shard or copy that was read and checked, all of it.
type Part struct {
	Shard    int // -1: a copy
	Member   string
	Err      error // nil: it is good; fs.ErrNotExist: missing; target.ErrUnavailable: not known; others: damaged
	BadUnits int64 // of 64 KiB, whose checksums differ
}

// place is where a shard or copy should be.
type place struct {
	member, number int
	file           string
	err            error
}

// Check reads every byte of an object's shards or copies.
func (t *Target) Check(ctx context.Context, name string) (Report, error) {
	if err := checkName(name); err != nil {
		return Report{}, err
	}
	f, err := t.find(ctx, name, toMend)
	if err != nil {
		return Report{}, err
	}
	o, err := t.pick(ctx, f)
	if err != nil {
		return Report{}, err
	}
	defer o.Close()
	return t.check(ctx, f, o)
}

func (t *Target) check(ctx context.Context, f *found, o *object) (Report, error) {
	r := Report{Name: f.name, Length: o.h.length}
	want := o.wanted()
	type result struct {
		i        int
		err      error
		badUnits int64
	}
	results := make(chan result, len(want))
	for i, p := range want {
		go func() {
			bad, err := t.verify(ctx, f, o, p)
			results <- result{i, err, bad}
		}()
	}
	r.Parts = make([]Part, len(want))
	for range want {
		res := <-results
		p := &want[res.i]
		p.err = res.err
		r.Parts[res.i] = Part{Shard: p.number, Member: t.members[p.member].String(), Err: res.err, BadUnits: res.badUnits}
		if o.h.kind != kindShard {
			r.Parts[res.i].Shard = -1
		}
	}
	if err := ctx.Err(); err != nil {
		return Report{}, err
	}
	r.Full = o.h.kind != kindShard || o.h.Layout == t.layout
	if o.h.kind == kindShard {
		r.Layout = o.h.Layout
	}
	for _, p := range want {
		if p.err != nil {
			r.places = append(r.places, p)
		}
	}
	for m, files := range f.files {
		for _, file := range files {
			if !isWanted(want, m, file) {
				r.Stray++
			}
		}
	}
	r.Full = r.Full && r.Stray == 0 && len(r.places) == 0
	return r, nil
}

func isWanted(want []place, member int, file string) bool {
	return slices.ContainsFunc(want, func(p place) bool { return p.member == member && p.file == file })
}

// wanted lists where everything should be.
func (o *object) wanted() []place {
	var out []place
	if o.h.kind != kindShard {
		for _, m := range o.places {
			out = append(out, place{member: m, file: o.name})
		}
		return out
	}
	for i := range o.h.total() {
		if i < len(o.places) {
			out = append(out, place{member: o.places[i], number: i, file: shardName(o.name, o.h.version, i)})
		}
	}
	return out
}

// verify reads what should be at a place.
func (t *Target) verify(ctx context.Context, f *found, o *object, p place) (bad int64, err error) {
	if f.errs[p.member] != nil {
		return 0, f.errs[p.member]
	}
	if !slices.Contains(f.files[p.member], p.file) {
		return 0, fs.ErrNotExist
	}
	s := t.newShard(o.name, p.file, p.number, []int{p.member})
	s.copy, s.want = o.h.kind != kindShard, o.h.version
	if s.copy {
		s.head = &o.h
	}
	defer s.Close()
	open, err := within(ctx, t.opts.StallAfter, func(ctx context.Context) (*opened, error) { return s.open(ctx) })
	if err != nil {
		return 0, err
	}
	var all error
	for u, n := int64(0), o.readUnits(); u < units(o.h.body); u += n {
		got, err := within(ctx, t.opts.StallAfter, func(ctx context.Context) (part, error) {
			p := s.readOpen(ctx, open, u, min(n, units(o.h.body)-u))
			if p.data == nil {
				return p, p.err
			}
			return p, nil
		})
		if err != nil {
			return bad, err
		}
		for _, good := range got.good {
			if !good {
				bad++
			}
		}
		all = errors.Join(all, got.err)
		t.giveBack(got.data)
	}
	return bad, all
}

// within gives up what takes too long.
func within[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		val T
		err error
	}
	done := make(chan result, 1)
	go func() {
		val, err := f(ctx)
		done <- result{val, err}
	}()
	late := newPatience(limit)
	defer late.Stop()
	var none T
	for {
		select {
		case r := <-done:
			return r.val, r.err
		case <-late.C:
			if late.over() {
				return none, errSlow
			}
		case <-ctx.Done():
			return none, ctx.Err()
		}
	}
}
