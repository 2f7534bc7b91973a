package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// watch asks all nodes again and again how they see each other.
type watch struct {
	t  *test
	mu struct {
		sync.Mutex
		seen map[pairOf][]sight // one more whenever a state changes; the last has the newest evidence
	}
}

// pairOf is a node that is asked, and one that it tells of.
type pairOf struct{ by, of string }

// sight is what one node says of another.
type sight struct {
	since, last time.Time // when it was first and last said
	state       string
	evidence    string
}

// watch begins to watch when all nodes call all nodes alive, until the test ends.
func (t *test) watch() *watch {
	t.Helper()
	w := &watch{t: t}
	w.mu.seen = make(map[pairOf][]sight)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, n := range t.Nodes {
		all.Go(func() {
			for ctx.Err() == nil {
				w.look(ctx, n)
				select {
				case <-ctx.Done():
				case <-time.After(500 * time.Millisecond):
				}
			}
		})
	}
	t.Cleanup(func() { cancel(); all.Wait() })
	w.allAlive()
	w.forget()
	return w
}

// reached waits until all nodes have reached all others, and forgets what was said before.
func (w *watch) reached() {
	w.t.Helper()
	w.t.eventually("all nodes have reached all others", func(context.Context) bool {
		all := true
		w.each(func(by, of *Node) { all = all && (by == of || w.says(by, of, "alive", "this node reached it")) })
		return all
	})
	w.forget()
}

func (w *watch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.mu.seen)
}

// look asks one node. One that doesn't answer has said nothing.
func (w *watch) look(ctx context.Context, n *Node) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	st, err := n.Status(ctx)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, r := range st.Nodes {
		key := pairOf{n.Name, r.Name}
		all := w.mu.seen[key]
		if len(all) == 0 || all[len(all)-1].state != r.State {
			all = append(all, sight{since: now, state: r.State})
		}
		last := &all[len(all)-1]
		last.last, last.evidence = now, strings.Join(r.Evidence, "; ")
		w.mu.seen[key] = all
	}
}

// of gives all that a node has said of another.
func (w *watch) of(by, of *Node) []sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.seen[pairOf{by.Name, of.Name}])
}

// says tells whether that is what a node said of another a moment ago, with some words of evidence.
func (w *watch) says(by, of *Node, state string, words ...string) bool {
	all := w.of(by, of)
	if len(all) == 0 {
		return false
	}
	s := all[len(all)-1]
	missing := func(word string) bool { return !strings.Contains(s.evidence, word) }
	return s.state == state && time.Since(s.last) < 3*time.Second && !slices.ContainsFunc(words, missing)
}

// allAlive waits until all nodes call all nodes alive.
func (w *watch) allAlive() {
	w.t.Helper()
	w.t.eventually("all nodes call all nodes alive", func(context.Context) bool {
		all := true
		w.each(func(by, of *Node) { all = all && w.says(by, of, "alive") })
		return all
	})
}

// each is called for every two nodes.
func (w *watch) each(fn func(by, of *Node)) {
	for _, by := range w.t.Nodes {
		for _, of := range w.t.Nodes {
			fn(by, of)
		}
	}
}

// only fails the test if a node has said anything else of another.
func (w *watch) only(by, of *Node, states ...string) {
	w.t.Helper()
	for _, s := range w.of(by, of) {
		if !slices.Contains(states, s.state) {
			w.t.Errorf("node %s has called %s %s: %s", by.Name, of.Name, s.state, s.evidence)
		}
	}
}

// nobody fails the test if any node was called so by any.
func (w *watch) nobody(states ...string) {
	w.t.Helper()
	rest := slices.DeleteFunc([]string{"alive", "suspect", "unreachable", "dead"}, func(s string) bool { return slices.Contains(states, s) })
	w.each(func(by, of *Node) { w.only(by, of, rest...) })
}

// count tells how often a node has begun to call another so.
func (w *watch) count(by, of *Node, state string) (n int) {
	for _, s := range w.of(by, of) {
		if s.state == state {
			n++
		}
	}
	return n
}

// log tells what was said.
func (w *watch) log(begun time.Time) {
	w.each(func(by, of *Node) {
		var text []string
		for _, s := range w.of(by, of) {
			text = append(text, fmt.Sprintf("%v %s", s.since.Sub(begun).Round(time.Second), s.state))
		}
		if len(text) > 1 {
			w.t.Logf("node %s of %s: %s", by.Name, of.Name, strings.Join(text, ", "))
		}
	})
}
