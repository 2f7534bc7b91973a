package erasure

import (
	"context"
	"errors"
	"io"
	"slices"

	"graphvol/chunkstore/target"
)

// Repair brings an object to full strength in the target's layout: shards and copies that are missing or damaged are put anew, byte for byte as they were. An
// object in another layout is stored as a new version; so is one that can be read though not all of its shards can be computed, because what is damaged is beyond its
// end. What should not be there is removed once all else is durable. A *DegradedError says what could not be put.
func (t *Target) Repair(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	unlock, err := t.locks.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	f, err := t.find(ctx, name, toMend)
	if err != nil {
		return err
	}
	o, err := t.pick(ctx, f)
	if err != nil {
		return err
	}
	defer o.Close()
	h, want := o.h, o.wanted()
	anew := h.kind == kindShard && h.Layout != t.layout
	if !anew {
		r, err := t.check(ctx, f, o)
		if err != nil {
			return err
		}
		if err = t.putParts(ctx, o, h, r.places); err != nil && !(h.kind == kindShard && incomputable(err)) {
			return err
		}
		anew = err != nil
	}
	if anew {
		if h, want, err = t.putAnew(ctx, f, o); err != nil {
			return err
		}
	}
	return t.join(t.removeFiles(ctx, f, func(member int, file string) bool {
		if isWanted(want, member, file) {
			return false
		}
		_, v, _, ok := parseShard(file)
		return f.silent() == 0 || ok && v.gen < h.gen // a newer version may be complete with what silent members have
	}))
}

// putAnew stores an object as a new version, and tells where that is.
func (t *Target) putAnew(ctx context.Context, f *found, o *object) (header, []place, error) {
	h := newHeader(o.name, version{t.layout, o.h.length, t.newGeneration(f.newest())}, 0, kindShard)
	want := (&object{name: o.name, h: h, places: o.places}).wanted()
	return h, want, t.putParts(ctx, o, h, want)
}

// incomputable tells whether parts could not be put because too little is left of the others.
func incomputable(err error) bool {
	var d *DegradedError
	return errors.As(err, &d) && slices.ContainsFunc(d.Missing, func(m Missing) bool {
		var lost *LostError
		return errors.As(m.Err, &lost) && lost.class == nil
	})
}

// putParts puts parts of an object that is read from others.
func (t *Target) putParts(ctx context.Context, o *object, h header, todo []place) error {
	if len(todo) == 0 {
		return nil
	}
	src := filler{all: func(off int64, data [][]byte) error { return o.fill(ctx, off, data) }}
	if h.version != o.h.version {
		src = fromSource(objectSource{target.Reader(ctx, o), o.h.length}, h.body)
	}
	u, err := t.newUpload(h, len(todo), src)
	if err != nil {
		return err
	}
	for _, p := range todo {
		u.add(p.member, p.number, p.file)
	}
	missing, err := t.put(ctx, u, o.name, 0)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = degraded(o.name, missing)
	}
	return err
}

// fill reads the same part of all data shards from any k shards.
func (o *object) fill(ctx context.Context, off int64, data [][]byte) error {
	step := o.readUnits() * unitLen
	for at := int64(0); at < int64(len(data[0])); at += step {
		n := min(step, int64(len(data[0]))-at)
		f := o.newFetch(-1, (off+at)/unitLen, units(n))
		if err := f.collect(ctx); err != nil {
			return err
		}
		out := make([][]byte, len(data))
		for i := range data {
			out[i] = data[i][at : at+n]
		}
		if err := f.decode(out); err != nil {
			return err
		}
		f.giveBack()
	}
	return nil
}

// objectSource is an open object as a source.
type objectSource struct {
	io.ReaderAt
	size int64
}

// Size is the object's length.
func (s objectSource) Size() int64 { return s.size }
