package retain

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// every makes n items, one each step, the last at end.
func every(n int, step time.Duration, end time.Time) (items []Item) {
	for i := range n {
		at := end.Add(-time.Duration(n-1-i) * step)
		items = append(items, Item{ID: at.Format("06-01-02T15:04"), Created: at})
	}
	return items
}

func kept(ds []Decision) (ids []string) {
	for _, d := range ds {
		if d.Keep {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

var end = time.Date(2026, 11, 29, 17, 30, 0, 0, time.UTC) // a Sunday

func TestApply(t *testing.T) {
	hours, days := every(100, time.Hour, end), every(800, 24*time.Hour, end)
	for _, c := range []struct {
		policy Policy
		items  []Item
		want   string
	}{
		{Policy{Last: 3}, hours, "26-11-29T15:30 26-11-29T16:30 26-11-29T17:30"},
		{Policy{Hourly: 2}, hours, "26-11-29T16:30 26-11-29T17:30"},
		{Policy{Daily: 3}, hours, "26-11-27T23:30 26-11-28T23:30 26-11-29T17:30"},
		{Policy{Daily: 2, Last: 1}, hours, "26-11-28T23:30 26-11-29T17:30"},
		{Policy{Weekly: 2}, days, "26-11-22T17:30 26-11-29T17:30"},
		{Policy{Monthly: 3}, days, "26-09-30T17:30 26-10-31T17:30 26-11-29T17:30"},
		{Policy{Yearly: All}, days, "24-12-31T17:30 25-12-31T17:30 26-11-29T17:30"},
		{Policy{Within: Span{Days: 2}}, days, "26-11-27T17:30 26-11-28T17:30 26-11-29T17:30"},
		{Policy{Within: Span{Hours: 1}}, hours, "26-11-29T16:30 26-11-29T17:30"},
		{Policy{Within: Span{Months: 1}, Yearly: 1}, days[770:771], days[770].ID},
		{Policy{Last: 200}, every(2, time.Minute, end), "26-11-29T17:29 26-11-29T17:30"},
		{Policy{Last: 1}, nil, ""},
		{Policy{Tags: []string{"a", "c"}}, []Item{{ID: "1", Tags: []string{"a", "b"}}, {ID: "2", Tags: []string{"b"}}, {ID: "3"}, {ID: "4", Tags: []string{"c"}}, {ID: "5"}}, "1 4 5"},
	} {
		if got := strings.Join(kept(c.policy.Apply(c.items)), " "); got != c.want {
			t.Errorf("%+v keeps %s, want %s", c.policy, got, c.want)
		}
	}
	if all := kept(Policy{Last: All}.Apply(days)); len(all) != len(days) {
		t.Errorf("of %d, %d are kept", len(days), len(all))
	}
}

// TestWrongClock: a snapshot from the future doesn't push out those that were taken before it, nor is it taken for the newest.
func TestWrongClock(t *testing.T) {
	items := every(5, 24*time.Hour, end)
	items[1].Created = end.AddDate(50, 0, 0)
	ds := Policy{Daily: 3}.Apply(items)
	if got := fmt.Sprint(kept(ds)); got != fmt.Sprint([]string{items[2].ID, items[3].ID, items[4].ID}) {
		t.Errorf("kept: %s", got)
	}
	if d := (Policy{Within: Span{Days: 1}}).Apply(items); !d[4].Keep || !d[3].Keep || d[0].Keep {
		t.Errorf("%+v", d)
	}
}

func TestHeldAndNewest(t *testing.T) {
	items := every(5, time.Hour, end)
	items[0].Held = true
	ds := Policy{Within: Span{Hours: 1}}.Apply(items)
	if !ds[0].Keep || ds[0].Reasons[0] != "held" || ds[1].Keep {
		t.Errorf("%+v", ds)
	}
	items[4].Created = end.AddDate(-9, 0, 0) // kept for being the newest, whatever its time
	if ds := (Policy{Yearly: 1}).Apply(items); !ds[4].Keep {
		t.Errorf("%+v", ds[4])
	}
}

func TestCheck(t *testing.T) {
	for _, p := range []Policy{{}, {Daily: -2}, {Last: 1, Yearly: -7}} {
		if p.Check() == nil {
			t.Errorf("%+v is accepted", p)
		}
	}
	for _, p := range []Policy{{Last: 1}, {Yearly: All}, {Within: Span{Hours: 1}}} {
		if err := p.Check(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func FuzzSpan(f *testing.F) {
	for _, s := range []string{"1y6m14d12h", "30d", "2h", "", "1d1y", "-1d", "99999999999999999999d", "1w"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		span, err := ParseSpan(s)
		if err != nil {
			return
		}
		if back, err := ParseSpan(span.String()); span != (Span{}) && (err != nil || back != span) {
			t.Errorf("%q is %+v, which is written %q", s, span, span.String())
		}
		_ = span.before(end)
	})
}
