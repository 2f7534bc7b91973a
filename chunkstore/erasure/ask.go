package erasure

import (
	"context"
	"time"
)

// answers of the members that were asked, by the place in the list of those.
type answers[T any] struct {
	vals []T
	errs []error // nil: answered
}

func (a *answers[T]) answered() int {
	n := 0
	for _, err := range a.errs {
		if err == nil {
			n++
		}
	}
	return n
}

// ask asks several members at once. It comes back when all have answered; when enough says so, and the others were given HedgeAfter, or as long again as
// those took, more; or when nobody has answered for StallAfter. Those not heard of have errSlow. An impatient caller doesn't wait for suspects at all once there is enough.
func ask[T any](ctx context.Context, t *Target, who []int, impatient bool, enough func(*answers[T]) bool, f func(ctx context.Context, pos int) (T, error)) (*answers[T], error) {
	type answer struct {
		pos int
		val T
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	replies := make(chan answer, len(who))
	a := &answers[T]{vals: make([]T, len(who)), errs: make([]error, len(who))}
	pending := make(map[int]bool)
	for pos := range who {
		a.errs[pos] = errSlow
		pending[pos] = true
		go func() {
			val, err := f(ctx, pos)
			replies <- answer{pos, val, err}
		}()
	}
	start := time.Now()
	stall := newPatience(t.opts.StallAfter)
	defer stall.Stop()
	var hedge <-chan time.Time
	for len(pending) > 0 {
		if enough(a) {
			if impatient && onlySuspects(t, who, pending) {
				break
			}
			if hedge == nil {
				hedge = time.After(max(t.opts.HedgeAfter, time.Since(start)))
			}
		}
		select {
		case r := <-replies:
			delete(pending, r.pos)
			a.vals[r.pos], a.errs[r.pos] = r.val, r.err
			if ctx.Err() == nil {
				t.judge(who[r.pos], r.err)
			}
			stall.renew()
			continue
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-hedge:
		case <-stall.C:
			if !stall.over() {
				continue
			}
		}
		break
	}
	for pos := range pending {
		if !t.suspected(who[pos]) { // or it would be forever, as long as somebody asks
			t.judge(who[pos], errSlow)
		}
	}
	return a, ctx.Err()
}

func onlySuspects(t *Target, who []int, pending map[int]bool) bool {
	for pos := range pending {
		if !t.suspected(who[pos]) {
			return false
		}
	}
	return true
}

// all are the members' numbers.
func (t *Target) all() []int {
	out := make([]int, len(t.members))
	for i := range out {
		out[i] = i
	}
	return out
}
