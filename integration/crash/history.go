package crash

// history is what one thing has been since it was last known to be durable, oldest first. Only one goroutine asks for new values.
type history[T any] struct {
	first    T // set
	maybes   []maybe[T]
	returned int // so many of maybes' calls have returned
	stale    []T // what the disk may have instead of first, though nothing shows it: see checker.block
}

type maybe[T any] struct {
	val  T
	done uint64 // when the call had returned, by the oracle's clock
}

func (h *history[T]) ask(val T) { h.maybes = append(h.maybes, maybe[T]{val: val}) }

// last is what the thing is while the power stays on.
func (h *history[T]) last() T {
	if len(h.maybes) == 0 {
		return h.first
	}
	return h.maybes[len(h.maybes)-1].val
}

func (h *history[T]) done(now uint64) {
	for ; h.returned < len(h.maybes); h.returned++ {
		h.maybes[h.returned].done = now
	}
}

// sync makes durable what had returned by then.
func (h *history[T]) sync(then uint64) {
	n := 0
	for n < h.returned && h.maybes[n].done <= then {
		n++
	}
	if n > 0 {
		h.first = h.maybes[n-1].val
		h.maybes, h.returned, h.stale = h.maybes[n:], h.returned-n, nil
	}
}

// all lists what a power cut may leave.
func (h *history[T]) all() []T {
	vals := append([]T{h.first}, h.stale...)
	for _, m := range h.maybes {
		vals = append(vals, m.val)
	}
	return vals
}

// settle says that val was found after a power cut.
func (h *history[T]) settle(val T) { *h = history[T]{first: val} }
