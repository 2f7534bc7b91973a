package erasure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"graphvol/chunkstore/target"
)

// claim stores an object that must not be there yet; see the package documentation.
func (t *Target) claim(ctx context.Context, f *found, src target.Source) error {
	if err := t.checkAbsent(ctx, f); err != nil {
		return err
	}
	h := newHeader(f.name, version{Layout{1, 0}, src.Size(), t.newGeneration(f.newest())}, 0, kindClaim)
	u, err := t.newUpload(h, len(t.ids), fromSource(src, h.body))
	if err != nil {
		return err
	}
	for _, m := range order(t.ids, f.name) {
		u.add(m, 0, f.name)
	}
	rest := u.jobs
	o := target.PutOptions{IfAbsent: true}
	for won := false; !won && len(rest) > 0; rest = rest[1:] {
		first := rest[0]
		u.run(ctx, rest[:1], o)
		switch won = first.err == nil; {
		case errors.Is(first.err, target.ErrExists):
			t.takeBack(ctx, u)
			return fmt.Errorf("object %s: %w", f.name, target.ErrExists)
		case ctx.Err() != nil:
			t.takeBack(ctx, u)
			return ctx.Err()
		}
	}
	u.run(ctx, rest, o)
	return t.count(ctx, u, f.name)
}

// count decides whether a claim was successful.
func (t *Target) count(ctx context.Context, u *upload, name string) error {
	var missing []Missing
	exists := false
	for _, j := range u.jobs {
		if j.err != nil {
			missing = append(missing, j.missing(t))
			exists = exists || errors.Is(j.err, target.ErrExists)
		}
	}
	won := len(u.jobs) - len(missing)
	if won >= t.majority() {
		return degraded(name, missing)
	}
	t.takeBack(ctx, u)
	if exists {
		return fmt.Errorf("object %s: %w", name, target.ErrExists)
	}
	return fmt.Errorf("store object %s: %d of %d targets have taken it, which is no majority: %w", name, won, len(u.jobs), u.errs())
}

// checkAbsent returns ErrExists if what was found can be read. What a Put left that failed is no object.
func (t *Target) checkAbsent(ctx context.Context, f *found) error {
	if f.empty() {
		return nil
	}
	o, err := t.pick(ctx, f)
	if err == nil {
		o.Close()
		return fmt.Errorf("object %s: %w", f.name, target.ErrExists)
	}
	if lost := (*LostError)(nil); errors.As(err, &lost) && lost.class == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
