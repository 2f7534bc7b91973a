package liveness

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

var errAway = errors.New("no answer")

// desk is a table of the agent a with a clock that the test moves.
type desk struct {
	*testing.T
	*Table
	now time.Time
}

func newDesk(t *testing.T, others ...string) *desk {
	d := &desk{t, NewTable("a", Config{}), time.Now()}
	d.SetMembers(others)
	return d
}

func (d *desk) after(t time.Duration) { d.now = d.now.Add(t) }

func (d *desk) probe(from, to string, err error) {
	d.Observe(Probe{From: from, To: to, At: d.now, Latency: time.Millisecond, Err: err})
}

func (d *desk) lease(name string, l Lease) { d.SetLease(name, l, d.now) }

func (d *desk) want(name string, s State, words ...string) {
	d.Helper()
	v := d.Judge(name, d.now)
	text := strings.Join(v.Evidence, "; ")
	if v.State != s {
		d.Errorf("%s is %s, not %s: %s", name, v.State, s, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			d.Errorf("the evidence of %s lacks %q: %s", name, w, text)
		}
	}
}

// fail has an agent not answer this one for a time, with attempts as a prober makes them.
func (d *desk) fail(name string, long time.Duration) {
	for end := d.now.Add(long); d.now.Before(end); d.after(min(5*time.Second, end.Sub(d.now))) {
		d.probe("a", name, errAway)
	}
	d.probe("a", name, errAway)
}

func TestStates(t *testing.T) {
	d := newDesk(t, "b", "c", "d")
	d.want("a", Alive, "it is this node")
	d.want("x", Dead, "no member")
	d.want("b", Suspect, "hasn't tried", "nothing is known of its lease")
	d.lease("b", LeaseHeld)
	d.want("b", Alive, "renews its lease")
	d.probe("a", "b", nil)
	d.probe("a", "c", nil)
	d.want("b", Alive, "reached it 0s ago, in 1ms")

	d.after(5 * time.Second)
	d.probe("a", "b", errAway)
	d.want("b", Suspect, "hasn't reached it for 5s: it failed once", "no answer")
	d.after(9 * time.Second)
	d.probe("a", "b", errAway)
	d.want("b", Suspect)
	d.after(time.Second)
	d.want("b", Unreachable, "for 15s: it failed 2 times", "renews its lease")
	d.lease("b", LeaseLost)
	d.probe("a", "c", nil)
	d.want("b", Suspect) // c lives, and hasn't been asked
	d.probe("c", "b", errAway)
	d.want("b", Dead, "not reached by c either", "ran out 0s ago")
	d.probe("d", "b", nil)
	d.want("b", Unreachable, "reached by d")
	d.after(time.Second)
	d.probe("d", "b", errAway)
	d.want("b", Dead, "c, d")
	d.Heard("b", d.now)
	d.want("b", Unreachable, "it called this node 0s ago")
	d.probe("a", "b", nil)
	d.want("b", Alive, "not reached by c, d;")
}

// TestNoWitness: who must have tried before an agent is called dead.
func TestNoWitness(t *testing.T) {
	d := newDesk(t, "b")
	d.fail("b", 20*time.Second)
	d.want("b", Unreachable, "nothing is known of its lease")
	d.lease("b", LeaseLost)
	d.want("b", Dead, "never reached it", "it has had no lease for 0s at least") // nobody else is there

	// This node reaches nobody but etcd: of b, c may know more.
	d = newDesk(t, "b", "c")
	d.lease("b", LeaseLost)
	d.lease("c", LeaseHeld)
	d.fail("b", 20*time.Second)
	d.probe("a", "c", errAway)
	d.want("b", Unreachable, "may be this one that is cut off")
	d.lease("c", LeaseLost)
	d.want("b", Dead)

	d = newDesk(t, "b", "c", "d", "e")
	for _, n := range []string{"b", "c", "d", "e"} {
		d.fail(n, 20*time.Second)
	}
	d.probe("a", "b", errAway)
	d.want("b", Unreachable, "may be this one that is cut off")
	d.probe("a", "c", nil)
	d.probe("c", "b", errAway)
	d.want("b", Unreachable, "not reached by c either") // two of five, and no lease is known
	d.probe("a", "d", nil)
	d.probe("d", "b", errAway)
	d.want("b", Dead, "not reached by c, d either")
	d.after(time.Second)
	d.probe("a", "d", errAway) // a witness must live
	d.want("b", Unreachable)
	d.lease("b", LeaseLost)
	d.want("b", Dead)
}

// TestOldWitness: what was said before this node had any doubt, or long ago, is no answer.
func TestOldWitness(t *testing.T) {
	d := newDesk(t, "b", "c", "d")
	d.lease("b", LeaseLost)
	d.probe("c", "b", errAway)
	d.after(time.Second)
	d.fail("b", 20*time.Second)
	d.probe("a", "c", nil)
	d.want("b", Suspect)
	d.probe("c", "b", errAway)
	d.want("b", Dead)
	for range 5 {
		d.after(7 * time.Second)
		d.probe("a", "c", nil)
		d.probe("a", "b", errAway)
	}
	d.want("b", Suspect) // c has said so 35 s ago
	d.probe("c", "b", errAway)
	d.want("b", Dead)
	d.after(16 * time.Second) // this process rested: its own attempts are old
	d.probe("a", "c", nil)
	d.probe("c", "b", errAway)
	d.want("b", Suspect)
}

// TestSince: an agent is silent since it last answered, if it was asked in every round, but no time counts in which this process itself has rested.
func TestSince(t *testing.T) {
	d := newDesk(t, "b")
	d.lease("b", LeaseHeld)
	d.probe("a", "b", nil)
	d.after(9 * time.Second)
	d.Observe(Probe{From: "a", To: "b", At: d.now, Latency: 2 * time.Second, Err: errAway})
	d.want("b", Suspect, "hasn't reached it for 9s")
	d.after(6 * time.Second)
	d.want("b", Unreachable)

	d.probe("a", "b", nil)
	d.after(time.Minute)
	d.Observe(Probe{From: "a", To: "b", At: d.now, Latency: time.Minute, Err: errAway})
	d.want("b", Suspect, "hasn't reached it for 9s")

	d.after(time.Second)
	d.probe("a", "b", nil)
	d.Observe(Probe{From: "a", To: "b", At: d.now.Add(-time.Minute)})
	d.want("b", Alive, "reached it 0s ago") // not the older one
}

// TestNotAsked: an agent that nobody asks isn't silent.
func TestNotAsked(t *testing.T) {
	d := newDesk(t, "b", "c")
	d.lease("b", LeaseHeld)
	d.probe("a", "b", nil)
	d.after(10 * time.Minute)
	d.want("b", Alive)
	d.probe("a", "b", errAway)
	d.want("b", Suspect, "for 7s")
	d.probe("a", "b", nil)
	d.lease("b", LeaseLost)
	d.after(10 * time.Minute)
	d.want("b", Suspect, "ran out 10m0s ago") // to be probed
	d.Merge("c", []Report{{Peer: "b", Age: time.Second, Latency: time.Millisecond}}, d.now)
	d.want("b", Alive, "reached by c")
	d.want("c", Alive)

	d = newDesk(t, "b", "c")
	d.lease("b", LeaseHeld)
	d.probe("c", "b", errAway)
	d.want("b", Alive)
	d.lease("c", LeaseHeld)
	d.want("b", Suspect, "not reached by c") // so this node looks too
	d.fail("b", 20*time.Second)
	d.lease("b", LeaseLost)
	d.after(31 * time.Second)
	d.probe("a", "b", errAway)
	d.want("b", Suspect) // c renews its lease, so it can be asked
}

func TestMerge(t *testing.T) {
	there := NewTable("c", Config{})
	there.SetMembers([]string{"a", "b", "d"})
	d := newDesk(t, "b", "c", "d")
	there.Observe(Probe{From: "c", To: "b", At: d.now.Add(-3 * time.Second), Latency: time.Millisecond})
	there.Observe(Probe{From: "c", To: "d", At: d.now.Add(-2 * time.Second), Err: errAway})
	there.Observe(Probe{From: "c", To: "a", At: d.now.Add(-2 * time.Second), Err: errAway})
	reports := there.Reports(d.now)
	want := []Report{{Peer: "a", Age: 2 * time.Second, Error: "no answer"}, {Peer: "b", Age: 3 * time.Second, Latency: time.Millisecond}, {Peer: "d", Age: 2 * time.Second, Error: "no answer"}}
	if !slices.Equal(reports, want) {
		t.Fatalf("reports %+v", reports)
	}
	d.Merge("c", reports, d.now)
	d.Merge("x", reports, d.now)
	d.Merge("a", []Report{{Peer: "d", Age: 0}}, d.now)
	d.want("b", Alive, "reached by c")
	d.want("c", Alive)
	d.want("d", Suspect, "not reached by c;")
	d.want("a", Alive)
	d.Merge("c", []Report{{Peer: "b", Age: 4 * time.Second, Error: "late news"}}, d.now)
	d.want("b", Alive, "reached by c")
	d.SetMembers([]string{"b", "d"})
	d.want("c", Dead, "no member")
	d.after(time.Minute)
	d.want("b", Suspect)
}

// TestHistory: an agent that often was silent and came back is given more time, but not any.
func TestHistory(t *testing.T) {
	d := newDesk(t, "b", "c")
	d.lease("b", LeaseLost)
	allowed := func() time.Duration { return d.mu.members["b"].hist.allowed(d.cfg) }
	for range 100 {
		d.probe("a", "b", nil)
		d.after(5 * time.Second)
	}
	if got := allowed(); got != 15*time.Second {
		t.Errorf("a regular agent is allowed %s", got)
	}
	d.after(time.Hour) // nobody asks
	for range 3 {
		d.probe("a", "b", nil)
		d.after(5 * time.Second)
	}
	if got := allowed(); got != 15*time.Second {
		t.Errorf("one that wasn't asked for an hour is allowed %s", got)
	}
	for range 6 {
		d.probe("a", "b", nil)
		d.fail("b", 22*time.Second)
		for range 8 {
			d.probe("a", "b", nil)
			d.after(5 * time.Second)
		}
	}
	if got := allowed(); got < 23*time.Second || got > 50*time.Second {
		t.Errorf("one that was silent for 22 s six times is allowed %s", got)
	}
	d.probe("a", "b", nil)
	d.fail("b", 22*time.Second)
	d.probe("a", "c", nil)
	d.probe("c", "b", errAway)
	d.want("b", Suspect, "for up to 22s", "are allowed, not 15s")
	for range 10 {
		d.probe("a", "b", nil)
		d.fail("b", time.Hour)
	}
	if got := allowed(); got != time.Minute {
		t.Errorf("one that was away for hours is allowed %s", got)
	}
	regular := func(n int) {
		for range n {
			d.probe("a", "b", nil)
			d.after(5 * time.Second)
		}
	}
	if regular(70); allowed() != 15*time.Second {
		t.Errorf("six minutes later it is allowed %s", allowed())
	}
	d.fail("b", time.Hour)
	if regular(60); allowed() > 50*time.Second {
		t.Errorf("after one long absence it is allowed %s", allowed())
	}
	regular(70)
	for range 3 { // many probers
		d.probe("c", "b", nil)
		d.fail("b", 22*time.Second)
		for range 100 {
			d.probe("c", "b", nil)
			d.after(500 * time.Millisecond)
		}
	}
	if got := allowed(); got < 20*time.Second {
		t.Errorf("one that many probe, and which was silent for 22 s three times, is allowed %s", got)
	}
}
