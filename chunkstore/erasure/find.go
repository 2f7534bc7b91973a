package erasure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"graphvol/chunkstore/target"
)

// found is what members list of one object.
type found struct {
	name   string
	shards map[version][][]int // by number: the members that have a file of the right size
	copies []int               // members that have a file of the object's name
	files  [][]string          // by member: all of it
	errs   []error             // by member: nil if it answered
}

func newFound(name string, n int) *found {
	return &found{name: name, shards: make(map[version][][]int), files: make([][]string, n), errs: make([]error, n)}
}

// add takes in one row of a member's list.
func (f *found) add(member int, in target.Info) {
	if in.Name == f.name {
		f.copies = append(f.copies, member)
		f.files[member] = append(f.files[member], in.Name)
		return
	}
	name, v, number, ok := parseShard(in.Name)
	if !ok || name != f.name {
		return
	}
	f.files[member] = append(f.files[member], in.Name)
	if f.shards[v] == nil {
		f.shards[v] = make([][]int, v.total())
	}
	if in.Size != fileLen(v.shardLen(v.length)) {
		return
	}
	f.shards[v][number] = append(f.shards[v][number], member)
}

// count is how many shards of a version are there.
func (f *found) count(v version) int {
	n := 0
	for _, at := range f.shards[v] {
		if len(at) > 0 {
			n++
		}
	}
	return n
}

// best is the newest version that can be read, and if there is none the one with the most shards; false if there is no shard.
func (f *found) best() (best version, ok bool) {
	better := func(v version) bool {
		n, m := f.count(v), f.count(best)
		if n >= v.Data && m >= best.Data {
			return v.gen > best.gen
		}
		if n >= v.Data || m >= best.Data {
			return n >= v.Data
		}
		return n > m || n == m && v.gen > best.gen
	}
	for v := range f.shards {
		if !ok || better(v) {
			best, ok = v, true
		}
	}
	return best, ok
}

// newest is the latest generation of any shard.
func (f *found) newest() uint64 {
	var gen uint64
	for v := range f.shards {
		gen = max(gen, v.gen)
	}
	return gen
}

func (f *found) empty() bool { return len(f.shards) == 0 && len(f.copies) == 0 }

// silent is how many members have not answered.
func (f *found) silent() int {
	n := 0
	for _, err := range f.errs {
		if err != nil {
			n++
		}
	}
	return n
}

// enough says whether the object can be read, as far as names tell.
func (f *found) enough() bool {
	v, ok := f.best()
	return ok && f.count(v) >= v.Data || len(f.copies) > 0
}

// care is how long find waits for members that don't answer at once.
type care int

const (
	toRead  care = iota // until the object can be read
	toWrite             // for a little longer than for the others, if those are as many as are to be there
	toMend              // for each of them, until it must be taken for hanging
)

// find asks all members what they have of an object.
func (t *Target) find(ctx context.Context, name string, c care) (*found, error) {
	gather := func(a *answers[[]target.Info]) *found {
		f := newFound(name, len(t.members))
		for i, infos := range a.vals {
			f.errs[i] = a.errs[i]
			for _, in := range infos {
				f.add(i, in)
			}
		}
		return f
	}
	enough := func(a *answers[[]target.Info]) bool {
		switch c {
		case toRead:
			return a.answered() > 0 && gather(a).enough()
		case toWrite:
			return a.answered() >= len(t.members)-t.layout.Parity
		}
		return false
	}
	a, err := ask(ctx, t, t.all(), c == toRead, enough, func(ctx context.Context, i int) ([]target.Info, error) {
		return t.members[i].List(ctx, name)
	})
	if err != nil {
		return nil, err
	}
	return gather(a), nil
}

// pick opens the object that is the newest to be read of what was found.
func (t *Target) pick(ctx context.Context, f *found) (*object, error) {
	var copied *object
	copiesErr := error(nil)
	if len(f.copies) > 0 {
		if copied, copiesErr = t.pickCopy(ctx, f); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	v, ok := f.best()
	readable := ok && f.count(v) >= v.Data
	switch {
	case copied != nil && (!readable || copied.h.gen > v.gen):
		return copied, nil
	case readable:
		if copied != nil {
			copied.Close()
		}
		return t.shardsObject(f, v)
	case copiesErr != nil:
		return nil, copiesErr
	case ok:
		return nil, t.lostShards(f, v)
	case f.silent() > 0:
		return nil, fmt.Errorf("object %s: not on the targets that answer: %w", f.name, t.join(f.errs))
	}
	return nil, &fs.PathError{Op: "open object", Path: f.name, Err: fs.ErrNotExist}
}

// lostShards says which shards are missing.
func (t *Target) lostShards(f *found, v version) error {
	e := &LostError{Name: f.name, Layout: v.Layout}
	places := order(t.ids, f.name)
	for i, at := range f.shards[v] {
		if len(at) > 0 {
			continue
		}
		m := Missing{Shard: i, Member: "no target", Err: fs.ErrNotExist}
		if i < len(places) {
			m.Member = t.members[places[i]].String()
			if m.Err = f.errs[places[i]]; m.Err == nil {
				m.Err = fs.ErrNotExist
				if slices.Contains(f.files[places[i]], shardName(f.name, v, i)) {
					m.Err = damaged("the file is cut")
				}
			}
		}
		e.Missing = append(e.Missing, m)
	}
	if f.count(v)+f.silent() >= v.Data {
		e.class = target.ErrUnavailable
	}
	return e
}

// Open opens an object.
func (t *Target) Open(ctx context.Context, name string) (target.Object, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	o, err := t.open(ctx, name)
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (t *Target) open(ctx context.Context, name string) (*object, error) {
	f, err := t.find(ctx, name, toRead)
	if err != nil {
		return nil, err
	}
	o, err := t.pick(ctx, f)
	if err != nil && f.silent() > 0 && ctx.Err() == nil && !errors.Is(err, fs.ErrNotExist) {
		// What was good enough by its names may be damaged; those that were not waited for may have the rest.
		if f, err = t.find(ctx, name, toMend); err != nil {
			return nil, err
		}
		o, err = t.pick(ctx, f)
	}
	return o, err
}
