package clock

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Evidence is what one measurement has found.
type Evidence struct {
	At       time.Time     // when it ended, by this machine's clock
	Known    bool          // Offset and Error are
	Offset   time.Duration // how far this machine's clock is ahead of the right time
	Error    time.Duration // the true offset is at most so far from Offset
	By       string        // who says so, for people
	Disagree bool          // clocks differ by more than the bound, and nothing tells which are right; Offset is to the middle
	Readings []Reading     // all sources, also those that said nothing

	began, ended instant
}

// vote is one clock's: how far this machine's is ahead of it, at least and at most.
type vote struct{ least, most time.Duration }

func (r Reading) vote() vote { return vote{r.Offset - r.Error, r.Offset + r.Error} }

// middle is the median of the votes. If most of them hold the truth, so does it. split: there are as many on one side as on the other, and it
// matters on which side the truth is.
func middle(votes []vote, limit time.Duration) (m vote, split bool) {
	var least, most []time.Duration
	for _, v := range votes {
		least, most = append(least, v.least), append(most, v.most)
	}
	slices.Sort(least)
	slices.Sort(most)
	// Of n votes, more than half hold the truth: then it is no less than the first of these, and no more than the second.
	n := len(votes)
	m = vote{least[n/2], most[(n-1)/2]}
	if m.least <= m.most {
		return m, false
	}
	m = vote{m.most, m.least}
	return m, beyond(m.least, limit) != beyond(m.most, limit)
}

// beyond tells on which side of the bound an offset is: 0 if it is within.
func beyond(d, limit time.Duration) int {
	switch {
	case d > limit:
		return 1
	case d < -limit:
		return -1
	}
	return 0
}

// judge makes of all readings one answer.
func judge(all []Reading, limit time.Duration) Evidence {
	e := Evidence{Readings: all}
	own := Reading{Known: true} // this machine's clock votes for itself
	var servers, clocks []Reading
	for _, r := range all {
		switch {
		case r.Kind == KindKernel:
			own.Synchronised = r.Synchronised && r.Error <= limit
			if r.Known && r.Error <= limit {
				e.decide(r.vote(), "the kernel's word")
			}
		case r.Known && r.Kind == KindNTP:
			servers = append(servers, r)
			clocks = append(clocks, r)
		case r.Known:
			clocks = append(clocks, r)
		}
	}
	if len(clocks) == 0 {
		return e
	}
	if m, split := middleOf(servers, limit); len(servers) > 0 && !split {
		e.decide(m, names(servers))
		return e
	}
	clocks = append(clocks, own)
	m, split := middleOf(clocks, limit)
	if split {
		synced := slices.DeleteFunc(slices.Clone(clocks), func(r Reading) bool { return !r.Synchronised })
		if m, split := middleOf(synced, limit); len(synced) > 0 && !split {
			e.decide(m, names(synced)+" (synchronised)")
			return e
		}
	}
	e.decide(m, names(clocks))
	e.Disagree = split
	return e
}

func middleOf(rs []Reading, limit time.Duration) (vote, bool) {
	if len(rs) == 0 {
		return vote{}, false
	}
	var votes []vote
	for _, r := range rs {
		votes = append(votes, r.vote())
	}
	return middle(votes, limit)
}

func (e *Evidence) decide(m vote, by string) {
	e.Known, e.By = true, by
	e.Offset, e.Error = m.least/2+m.most/2, m.most/2-m.least/2
}

// names lists sources; this machine has none.
func names(rs []Reading) string {
	var out []string
	for _, r := range rs {
		if r.Name != "" {
			out = append(out, r.Name)
		}
	}
	if len(out) == 0 {
		return "this machine"
	}
	slices.Sort(out)
	if n := len(out); n > 4 {
		out = append(out[:3], fmt.Sprintf("%d more", n-3))
	}
	return strings.Join(out, ", ")
}

// pause tells whether backups pause after this measurement, and why; was is whether they did before it.
func (e *Evidence) pause(was bool, limit time.Duration) bool {
	switch {
	case !e.Known:
		return was
	case e.Disagree || e.Offset.Abs() > limit:
		return true
	}
	return was && e.Offset.Abs()+e.Error > resumeBelow(limit)
}

func resumeBelow(limit time.Duration) time.Duration { return limit - limit/10 }

// reason says in one line why backups pause.
func (e *Evidence) reason(limit time.Duration) string {
	resume := "and backups go on by themselves"
	switch {
	case e.Disagree:
		return fmt.Sprintf("the clocks of this machine and of %s differ by more than %s, and nothing tells which is right: synchronise them (chrony), or name time servers in the configuration (preflight: ntp); backups go on by themselves then",
			e.By, limit)
	case e.Offset.Abs() <= limit:
		resume = fmt.Sprintf("and backups go on by themselves when it is surely below %s", resumeBelow(limit))
	}
	where := "ahead"
	if e.Offset < 0 {
		where = "behind"
	}
	return fmt.Sprintf("this machine's clock is %s %s (by %s, ± %s) and may be off by %s: set it (chronyc makestep), %s",
		short(e.Offset.Abs()), where, e.By, short(e.Error), limit, resume)
}

// short gives a duration as precisely as matters here.
func short(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d < 10*time.Second:
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}
