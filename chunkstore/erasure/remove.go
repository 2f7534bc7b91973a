package erasure

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Remove removes all parts of objects.
func (t *Target) Remove(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
	}
	errs := make([]error, len(names))
	var g errgroup.Group
	g.SetLimit(8)
	for i, name := range names {
		g.Go(func() error {
			if err := t.remove(ctx, name); err != nil {
				errs[i] = fmt.Errorf("remove object %s: %w", name, err)
			}
			return nil
		})
	}
	_ = g.Wait() // no goroutine returns an error
	return errors.Join(errs...)
}

func (t *Target) remove(ctx context.Context, name string) error {
	unlock, err := t.locks.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	f, err := t.find(ctx, name, toMend)
	if err != nil {
		return err
	}
	errs := t.removeFiles(ctx, f, func(int, string) bool { return true })
	for i, err := range f.errs {
		if err != nil {
			errs[i] = err
		}
	}
	return t.join(errs)
}

// removeBefore removes the shards of generations before gen, and copies. What is left is done by the next Put or Repair.
func (t *Target) removeBefore(ctx context.Context, f *found, gen uint64, copies bool) {
	errs := t.removeFiles(ctx, f, func(_ int, file string) bool {
		_, v, _, ok := parseShard(file)
		return ok && v.gen < gen || !ok && copies
	})
	if err := t.join(errs); err != nil {
		t.opts.Log.Warn("an object was replaced, parts of the former one are left", "object", f.name, "err", err)
	}
}

// removeFiles removes what was found and should go, by member.
func (t *Target) removeFiles(ctx context.Context, f *found, gone func(member int, file string) bool) []error {
	errs := make([]error, len(t.members))
	var who []int
	var files [][]string
	for i, all := range f.files {
		var names []string
		for _, name := range all {
			if gone(i, name) {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			who, files = append(who, i), append(files, names)
		}
	}
	if len(who) == 0 {
		return errs
	}
	never := func(*answers[struct{}]) bool { return false }
	a, err := ask(ctx, t, who, false, never, func(ctx context.Context, pos int) (struct{}, error) {
		return struct{}{}, t.members[who[pos]].Remove(ctx, files[pos]...)
	})
	for pos, i := range who {
		if errs[i] = err; err == nil {
			errs[i] = a.errs[pos]
		}
	}
	return errs
}
