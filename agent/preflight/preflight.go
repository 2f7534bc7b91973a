package preflight

import (
	"context"
	"fmt"
	"sync"
	"time"

	"graphvol/agent/config"
	"graphvol/agent/preflight/check"
)

// DefaultPatience is how long one thing that is looked at may take to answer.
const DefaultPatience = 10 * time.Second

// Checker looks at everything. The zero value is ready; its methods may be called by any goroutine. Keep it as long as the process lives: what hangs is
// not asked again before it has answered, so no more than one thread hangs with it.
type Checker struct {
	Patience time.Duration // 0: DefaultPatience

	mu struct {
		sync.Mutex
		asked map[look]*answer // what hasn't answered yet
	}
}

// look is something that is looked at, which may hang.
type look struct {
	need
	least int64 // bytes that must be free; 0: it is the need that is looked at
}

func (l look) look() check.Row {
	if l.least > 0 {
		return space(l.path, l.least)
	}
	return l.need.look()
}

// answer is what comes of a look.
type answer struct {
	since time.Time
	done  chan struct{} // closed when row is there
	row   check.Row
}

// Run looks at all that a configuration names on this machine, and gives a row for each. It waits for Patience at most, and ends with ctx.
func (c *Checker) Run(ctx context.Context, f *config.File) []check.Row {
	var looks []look
	for _, n := range needs(f) {
		looks = append(looks, look{need: n})
	}
	least, err := f.Preflight.LeastFree()
	for i := range f.Volumes {
		looks = append(looks, look{need{check: "space", path: stateOf(&f.Volumes[i])}, least})
	}
	rows := append(c.all(ctx, looks), fuse(f)...)
	if err != nil {
		rows = append(rows, check.Bad("space", "preflight: free-space", err.Error(), ""))
	}
	return append(rows, memory(pressurePath)...)
}

// all does what may hang, all at once, and waits for a bounded time.
func (c *Checker) all(ctx context.Context, looks []look) []check.Row {
	patience := c.Patience
	if patience <= 0 {
		patience = DefaultPatience
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answers := make([]*answer, len(looks))
	for i, l := range looks {
		answers[i] = c.ask(l)
	}
	rows := make([]check.Row, len(looks))
	for i, a := range answers {
		select {
		case <-a.done:
			rows[i] = a.row
		case <-ctx.Done():
			rows[i] = check.Bad(looks[i].check, looks[i].path, fmt.Sprintf("doesn't answer (asked %s ago): its disk, or the server of the filesystem that it is on, hangs; look at the kernel's log (dmesg) and at the network",
				time.Since(a.since).Round(100*time.Millisecond)), "")
		}
	}
	return rows
}

// ask begins to look at something, unless that goes on already.
func (c *Checker) ask(l look) *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.mu.asked[l]; a != nil {
		return a
	}
	if c.mu.asked == nil {
		c.mu.asked = make(map[look]*answer)
	}
	a := &answer{since: time.Now(), done: make(chan struct{})}
	c.mu.asked[l] = a
	go func() {
		a.row = l.look()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.mu.asked, l)
		close(a.done)
	}()
	return a
}
