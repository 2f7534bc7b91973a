// Package retain decides which snapshots a retention policy keeps. It knows nothing but their order and times.
//
// The rules are those of restic's forget (docs/060_forget.rst of restic): each rule looks at the snapshots from the newest to the oldest and keeps the newest of each of
// the last so many periods that have one. What any rule keeps is kept.
package retain

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Policy says what to keep. The zero Policy keeps nothing, so Check refuses it.
type Policy struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int      // so many; All: without a limit
	Tags                                         []string // all that have one of these
	Within                                       Span     // all that are not older than this before the newest
}

// All keeps one of every period.
const All = -1

// Item is a snapshot.
type Item struct {
	ID      string
	Created time.Time
	Tags    []string
	Held    bool // kept whatever the policy says
}

// Decision is what becomes of an item.
type Decision struct {
	Item
	Keep    bool
	Reasons []string // why it is kept
}

// Check refuses what can't be a policy, above all one that would keep nothing.
func (p Policy) Check() error {
	some := p.Within != Span{} || len(p.Tags) > 0
	for _, n := range []int{p.Last, p.Hourly, p.Daily, p.Weekly, p.Monthly, p.Yearly} {
		if n < All {
			return fmt.Errorf("%d can't be a number of snapshots to keep: give 1 or more, or -1 for all", n)
		}
		some = some || n != 0
	}
	if !some {
		return errors.New("nothing would be kept: say what to keep (--keep-last and the like)")
	}
	return nil
}

// rule keeps the newest item of each of the last n periods.
type rule struct {
	name   string
	left   int
	period func(i int, t time.Time) string
	last   string // period of the newest one that was kept; empty: none
}

func (p Policy) rules() []*rule {
	in := func(format string) func(int, time.Time) string {
		return func(_ int, t time.Time) string { return t.Format(format) }
	}
	return []*rule{
		{name: "last", left: p.Last, period: func(i int, _ time.Time) string { return strconv.Itoa(i) }},
		{name: "hourly", left: p.Hourly, period: in("2006-01-02 15 -0700")},
		{name: "daily", left: p.Daily, period: in(time.DateOnly)},
		{name: "weekly", left: p.Weekly, period: func(_ int, t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, "-", w) }},
		{name: "monthly", left: p.Monthly, period: in("2006-01")},
		{name: "yearly", left: p.Yearly, period: in("2006")},
	}
}

// keeps tells whether the rule keeps an item of the period.
func (r *rule) keeps(i int, t time.Time) bool {
	if r.left == 0 {
		return false
	}
	if p := r.period(i, t); p != r.last {
		r.last = p
		if r.left > 0 {
			r.left--
		}
		return true
	}
	return false
}

// Apply decides about items, which are given oldest first, in the order in which they were taken: the clock may have been wrong, so the order counts, and times only say to which period an
// item belongs, in their own location. The decisions have the order of the items. The newest item is always kept: it is what the next snapshot is made from.
func (p Policy) Apply(items []Item) []Decision {
	out := make([]Decision, len(items))
	rules := p.rules()
	for i, item := range slices.Backward(items) {
		d := Decision{Item: item}
		if item.Held {
			d.Reasons = append(d.Reasons, "held")
		}
		for _, tag := range p.Tags {
			if slices.Contains(item.Tags, tag) {
				d.Reasons = append(d.Reasons, "tag "+tag)
			}
		}
		for _, r := range rules {
			if r.keeps(i, item.Created) {
				d.Reasons = append(d.Reasons, r.name)
			}
		}
		if newest := items[len(items)-1]; p.Within != (Span{}) && !item.Created.Before(p.Within.before(newest.Created)) {
			d.Reasons = append(d.Reasons, "within "+p.Within.String())
		}
		if i == len(items)-1 && len(d.Reasons) == 0 {
			d.Reasons = append(d.Reasons, "newest")
		}
		d.Keep = len(d.Reasons) > 0
		out[i] = d
	}
	return out
}

// Span is a length of time in calendar's units.
type Span struct{ Years, Months, Days, Hours int }

var spanForm = regexp.MustCompile(`^(?:(\d{1,4})y)?(?:(\d{1,4})m)?(?:(\d{1,5})d)?(?:(\d{1,6})h)?$`)

// ParseSpan reads a span as 1y6m14d12h; parts may be left out.
func ParseSpan(s string) (Span, error) {
	m := spanForm.FindStringSubmatch(s)
	if m == nil || s == "" {
		return Span{}, fmt.Errorf("%q is no length of time: write it as 1y6m14d12h, in years, months, days and hours", s)
	}
	var n [4]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1]) // empty: 0; the form bounds it
	}
	return Span{n[0], n[1], n[2], n[3]}, nil
}

// String is what ParseSpan reads.
func (s Span) String() (out string) {
	for i, n := range []int{s.Years, s.Months, s.Days, s.Hours} {
		if n > 0 {
			out += strconv.Itoa(n) + "ymdh"[i:i+1]
		}
	}
	return out
}

func (s Span) before(t time.Time) time.Time {
	return t.AddDate(-s.Years, -s.Months, -s.Days).Add(-time.Duration(s.Hours) * time.Hour)
}
