package erasure

import (
	"context"
	"errors"
	"fmt"

	"graphvol/chunkstore/target"
)

// Put stores an object; see the package documentation.
func (t *Target) Put(ctx context.Context, name string, src target.Source, o target.PutOptions) error {
	if err := checkName(name); err != nil {
		return err
	}
	if src.Size() > maxLength {
		return fmt.Errorf("object %s has %d bytes, more than the %d that are possible", name, src.Size(), int64(maxLength))
	}
	unlock, err := t.locks.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	f, err := t.find(ctx, name, toWrite)
	if err != nil {
		return err
	}
	if o.IfAbsent {
		return t.claim(ctx, f, src)
	}
	v := version{length: src.Size(), gen: t.newGeneration(f.newest())}
	if src.Size() < shortObject || isLong(name) {
		return t.putCopies(ctx, f, v, src)
	}
	v.Layout = t.layout
	return t.putShards(ctx, f, v, src)
}

func (t *Target) putShards(ctx context.Context, f *found, v version, src target.Source) error {
	h := newHeader(f.name, v, 0, kindShard)
	places := order(t.ids, f.name)[:v.total()]
	u, err := t.newUpload(h, len(places), fromSource(src, h.body))
	if err != nil {
		return err
	}
	for i, m := range places {
		u.add(m, i, shardName(f.name, v, i))
	}
	missing, err := t.put(ctx, u, f.name, v.Data)
	if err != nil {
		t.takeBack(ctx, u)
		return err
	}
	t.removeBefore(ctx, f, v.gen, true)
	return degraded(f.name, missing)
}

func (t *Target) putCopies(ctx context.Context, f *found, v version, src target.Source) error {
	v.Layout = Layout{1, 0}
	h := newHeader(f.name, v, 0, kindCopy)
	u, err := t.newUpload(h, len(t.ids), fromSource(src, h.body))
	if err != nil {
		return err
	}
	for m := range t.ids {
		u.add(m, 0, f.name)
	}
	missing, err := t.put(ctx, u, f.name, t.enoughCopies())
	if err != nil {
		return err
	}
	t.removeBefore(ctx, f, v.gen, false)
	return degraded(f.name, missing)
}

// put does what was prepared, and is content with need of it.
func (t *Target) put(ctx context.Context, u *upload, name string, need int) ([]Missing, error) {
	u.run(ctx, u.jobs, target.PutOptions{})
	var missing []Missing
	for _, j := range u.jobs {
		if j.err != nil {
			missing = append(missing, j.missing(t))
		}
	}
	if good := len(u.jobs) - len(missing); good < need {
		return nil, fmt.Errorf("store object %s: of %d parts %d are stored, which is less than %d: %w", name, len(u.jobs), good, need, u.errs())
	}
	return missing, nil
}

func degraded(name string, missing []Missing) error {
	if len(missing) == 0 {
		return nil
	}
	return &DegradedError{Name: name, Missing: missing}
}

// upload is an object on its way to several members.
type upload struct {
	t    *Target
	h    header
	s    *stripes
	jobs []*job
}

// job is one shard or copy.
type job struct {
	member int
	name   string
	shard  int // -1: a copy
	src    *shardSource
	err    error
	seen   int64 // src.calls when it was looked at
	idle   int   // how often it was the same
}

var errNotTried = errors.New("not tried")

func (j *job) missing(t *Target) Missing {
	return Missing{Shard: j.shard, Member: t.members[j.member].String(), Err: j.err}
}

func (t *Target) newUpload(h header, writers int, src filler) (*upload, error) {
	codec, err := t.codec(h.Layout)
	if err != nil {
		return nil, err
	}
	return &upload{t: t, h: h, s: newStripes(h, codec, writers, src, t.pace)}, nil
}

func (u *upload) add(member, number int, name string) {
	h := u.h
	h.number = number
	j := &job{member: member, name: name, shard: number, src: newShardSource(u.s, len(u.jobs), h), err: errNotTried}
	if h.kind != kindShard {
		j.shard = -1
	}
	u.jobs = append(u.jobs, j)
}

// run puts jobs and sets their errors. A member that stands still is left alone.
func (u *upload) run(ctx context.Context, jobs []*job, o target.PutOptions) {
	type result struct {
		j   *job
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(jobs))
	pending := make(map[*job]context.CancelFunc)
	for _, j := range jobs {
		ctx, cancel := context.WithCancel(ctx)
		pending[j] = cancel
		go func() { results <- result{j, u.t.members[j.member].Put(ctx, j.name, j.src, o)} }()
	}
	end := func(j *job, err error) {
		pending[j]()
		delete(pending, j)
		j.src.letGo()
		j.err = err
		if ctx.Err() == nil {
			u.t.judge(j.member, err)
		}
	}
	tick := newPatience(u.t.opts.StallAfter)
	defer tick.Stop()
	for len(pending) > 0 {
		select {
		case r := <-results:
			if pending[r.j] != nil {
				end(r.j, r.err)
			}
		case <-tick.C:
			for j := range pending {
				if j.stalled() {
					end(j, errSlow)
				}
			}
		case <-ctx.Done():
			for j := range pending {
				end(j, ctx.Err())
			}
		}
	}
}

// stalled is called at every tick.
func (j *job) stalled() bool {
	n := j.src.calls.Load()
	if n != j.seen || j.src.readers.Load() > 0 {
		j.seen, j.idle = n, 0
	} else {
		j.idle++
	}
	return j.idle > patienceTicks
}

func (u *upload) errs() error {
	var out []error
	for _, j := range u.jobs {
		if j.err != nil {
			out = append(out, fmt.Errorf("%s: %w", u.t.members[j.member], j.err))
		}
	}
	return errors.Join(out...)
}

// takeBack removes what was stored of an object that wasn't.
func (t *Target) takeBack(ctx context.Context, u *upload) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.opts.StallAfter)
	defer cancel()
	var who []int
	var names []string
	for _, j := range u.jobs {
		if j.err == nil {
			who, names = append(who, j.member), append(names, j.name)
		}
	}
	never := func(*answers[struct{}]) bool { return false }
	a, err := ask(ctx, t, who, true, never, func(ctx context.Context, pos int) (struct{}, error) {
		return struct{}{}, t.members[who[pos]].Remove(ctx, names[pos])
	})
	if err == nil {
		err = errors.Join(a.errs...)
	}
	if err != nil {
		t.opts.Log.Warn("parts of an object that could not be stored are left", "object", u.jobs[0].name, "err", err)
	}
}
