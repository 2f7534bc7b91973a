package erasure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/reedsolomon"

	"graphvol/chunkstore/target"
)

// Member is one of the targets that objects are spread over. Its id decides which shards it has, so it never changes.
type Member struct {
	ID      string
	Target  target.Target
	Leaving bool // it gets nothing any more; what is there is read, and Repair moves it to the others
}

// Options have useful defaults.
type Options struct {
	Log        *slog.Logger  // nil: nothing is logged
	HedgeAfter time.Duration // when a member that doesn't answer a read is replaced by others; 1 s
	StallAfter time.Duration // when one that makes no progress in a write, or is the only one to wait for, is given up; 1 min
	RetryAfter time.Duration // how long one that failed is not waited for; 10 s
}

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		p    *time.Duration
		want time.Duration
	}{{&o.HedgeAfter, time.Second}, {&o.StallAfter, time.Minute}, {&o.RetryAfter, 10 * time.Second}} {
		if *d.p <= 0 {
			*d.p = d.want
		}
	}
}

// Target stores objects in shards on its members.
type Target struct {
	layout  Layout
	opts    Options
	ids     []string  // of the members that objects are put to
	members []*member // these, and then those that are leaving
	locks   nameLocks
	lastGen atomic.Uint64
	bufs    sync.Pool     // of []byte, see readUnits
	pace    time.Duration // of stripes
	codecs  struct {
		sync.Mutex
		m map[Layout]reedsolomon.Encoder
	}
}

type member struct {
	target.Target
	id      string
	suspect atomic.Int64 // until this time nobody waits for it; Unix nanoseconds
}

var _ target.Target = (*Target)(nil)

// New returns a target over members, of which k+m at least aren't leaving.
func New(layout Layout, members []Member, o Options) (*Target, error) {
	if err := layout.check(); err != nil {
		return nil, err
	}
	o.setDefaults()
	t := &Target{layout: layout, opts: o, pace: defaultPace}
	for _, leaving := range []bool{false, true} {
		for _, m := range members {
			if m.Leaving != leaving {
				continue
			}
			if m.ID == "" || slices.ContainsFunc(t.members, func(o *member) bool { return o.id == m.ID }) {
				return nil, fmt.Errorf("targets need ids that differ: %s has %q", m.Target, m.ID)
			}
			if t.members = append(t.members, &member{Target: m.Target, id: m.ID}); !leaving {
				t.ids = append(t.ids, m.ID)
			}
		}
	}
	if len(t.ids) < layout.total() {
		return nil, fmt.Errorf("layout %s takes %d targets, there are %d", layout, layout.total(), len(t.ids))
	}
	t.codecs.m = make(map[Layout]reedsolomon.Encoder)
	if _, err := t.codec(layout); err != nil {
		return nil, err
	}
	return t, nil
}

// String names layout and members.
func (t *Target) String() string {
	names := make([]string, len(t.members))
	for i, m := range t.members {
		names[i] = m.String()
	}
	return fmt.Sprintf("%s over %s", t.layout, strings.Join(names, ", "))
}

// codec returns the arithmetic of a layout; objects may be stored in others than the present one.
func (t *Target) codec(l Layout) (reedsolomon.Encoder, error) {
	t.codecs.Lock()
	defer t.codecs.Unlock()
	if c := t.codecs.m[l]; c != nil {
		return c, nil
	}
	c, err := reedsolomon.New(l.Data, l.Parity, reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		return nil, fmt.Errorf("layout %s: %w", l, err)
	}
	t.codecs.m[l] = c
	return c, nil
}

// majority of all members that stay: two of them have one in common.
func (t *Target) majority() int { return len(t.ids)/2 + 1 }

// enoughCopies is how many copies of a short object make it stored: they survive what shards survive, as far as m members may be out of reach.
func (t *Target) enoughCopies() int { return min(t.layout.Parity+1, len(t.ids)-t.layout.Parity) }

func (t *Target) suspected(i int) bool { return t.members[i].suspect.Load() > time.Now().UnixNano() }

// judge notes what a member's answer says about it.
func (t *Target) judge(i int, err error) {
	m := t.members[i]
	if err != nil && outage(err) {
		if m.suspect.Swap(time.Now().Add(t.opts.RetryAfter).UnixNano()) == 0 {
			t.opts.Log.Warn("target of an erasure-coded remote doesn't answer", "target", m.String(), "err", err)
		}
	} else if (err == nil || permanent(err)) && m.suspect.Load() != 0 && m.suspect.Swap(0) != 0 {
		t.opts.Log.Info("target of an erasure-coded remote answers again", "target", m.String())
	}
}

// nameLocks keep two from writing one object at the same time.
type nameLocks struct {
	mu sync.Mutex
	m  map[string]chan struct{}
}

func (l *nameLocks) lock(ctx context.Context, name string) (unlock func(), err error) {
	mine := make(chan struct{})
	for {
		l.mu.Lock()
		if l.m == nil {
			l.m = make(map[string]chan struct{})
		}
		theirs := l.m[name]
		if theirs == nil {
			l.m[name] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				delete(l.m, name)
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-theirs:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// join is errors.Join, with the members' names.
func (t *Target) join(errs []error) error {
	var out []error
	for i, err := range errs {
		if err != nil {
			out = append(out, fmt.Errorf("%s: %w", t.members[i], err))
		}
	}
	return errors.Join(out...)
}
