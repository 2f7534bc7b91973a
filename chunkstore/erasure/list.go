package erasure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"slices"
	"strings"

	"graphvol/chunkstore/target"
)

// List lists what can be read, as far as names tell: objects with too few shards are left out if the other members have answered. As
// many members may be out of reach as there are parity shards.
func (t *Target) List(ctx context.Context, prefix string) ([]target.Info, error) {
	l, err := t.list(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var out []target.Info
	for name, f := range l.objects {
		size, ok, err := l.size(ctx, t, f)
		if err != nil {
			return nil, fmt.Errorf("list object %s: %w", name, err)
		}
		if ok {
			out = append(out, target.Info{Name: name, Size: size})
		}
	}
	slices.SortFunc(out, func(a, b target.Info) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Incomplete lists the names of which something is there, but not enough, though all members have answered: what a Put left that
// failed, and objects that are lost. List leaves them out; Remove removes them.
func (t *Target) Incomplete(ctx context.Context, prefix string) ([]string, error) {
	l, err := t.list(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var out []string
	for name, f := range l.objects {
		_, ok, err := l.size(ctx, t, f)
		if err != nil {
			return nil, fmt.Errorf("list object %s: %w", name, err)
		}
		if !ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// listing is what members list under a prefix.
type listing struct {
	objects map[string]*listed
	silent  int
}

// listed is a found object, which is much smaller.
type listed struct {
	name   string
	shards map[version]*shardSet
	copies []int64 // lengths that the copies have; one, if nothing happened
}

// shardSet is a set of shards' numbers.
type shardSet uint32

func (s *shardSet) add(number int) { *s |= 1 << number }

func (s *shardSet) count() int { return bits.OnesCount32(uint32(*s)) }

func (t *Target) list(ctx context.Context, prefix string) (*listing, error) {
	least := len(t.members) - t.layout.Parity
	enough := func(a *answers[[]target.Info]) bool { return a.answered() >= least }
	a, err := ask(ctx, t, t.all(), false, enough, func(ctx context.Context, i int) ([]target.Info, error) {
		return t.members[i].List(ctx, prefix)
	})
	if err != nil {
		return nil, err
	}
	if n := a.answered(); n < least {
		return nil, fmt.Errorf("%d of %d targets could be listed, %d are needed: %w", n, len(t.members), least, t.join(a.errs))
	}
	l := &listing{objects: make(map[string]*listed), silent: len(t.members) - a.answered()}
	for _, infos := range a.vals {
		for _, in := range infos {
			l.add(in, prefix)
		}
	}
	return l, nil
}

func (l *listing) add(in target.Info, prefix string) {
	name, v, number, ok := parseShard(in.Name)
	if !ok {
		name = in.Name
	}
	if !strings.HasPrefix(name, prefix) { // a shard's may end within what shards add
		return
	}
	o := l.objects[name]
	if o == nil {
		o = &listed{name: name}
		l.objects[name] = o
	}
	if !ok {
		if length, fits := copyLen(in.Size); fits && !slices.Contains(o.copies, length) {
			o.copies = append(o.copies, length)
		}
		return
	}
	if o.shards == nil {
		o.shards = make(map[version]*shardSet)
	}
	if o.shards[v] == nil {
		o.shards[v] = new(shardSet)
	}
	if in.Size == fileLen(v.shardLen(v.length)) {
		o.shards[v].add(number)
	}
}

// size is the object's length, or false if it can't be read.
func (l *listing) size(ctx context.Context, t *Target, o *listed) (int64, bool, error) {
	var best version
	ok, sure, kinds := false, false, len(o.copies)
	for v, set := range o.shards {
		whole := set.count() >= v.Data
		if set.count()+l.silent >= v.Data && (!ok || whole && !sure || whole == sure && v.gen > best.gen) {
			best, ok, sure = v, true, whole
		}
	}
	if ok {
		kinds++
	}
	switch {
	case kinds == 0:
		return 0, false, nil
	case kinds == 1 && ok:
		return best.length, true, nil
	case kinds == 1:
		return o.copies[0], true, nil
	}
	// An object is just being replaced, or was while a member was out of reach.
	open, err := t.open(ctx, o.name)
	if err != nil {
		if lost := (*LostError)(nil); errors.As(err, &lost) && lost.class == nil || errors.Is(err, fs.ErrNotExist) {
			return 0, false, nil
		}
		return 0, false, err
	}
	defer open.Close()
	return open.Size(), true, nil
}
