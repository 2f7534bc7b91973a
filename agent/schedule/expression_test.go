package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCheck(t *testing.T) {
	for text, want := range map[string]string{
		"0 * * * *": "", "*/15 1-5 * * MON-FRI": "", "@hourly": "", "@daily": "", "CRON_TZ=Europe/Berlin 30 2 * * *": "", "TZ=UTC @weekly": "", " 0  0 29 2 * ": "",
		"":                       "write five fields",
		"CRON_TZ=UTC":            "write five fields",
		"* * * *":                "it has 4 of the five fields",
		"0 0 * * * *":            "it has 6 of the five fields",
		"61 * * * *":             "above maximum (59)",
		"0 24 * * *":             "above maximum (23)",
		"soon":                   "it has 1 of the five fields",
		"@reboot":                "@reboot",
		"@every 5m":              "write five fields, as */15",
		"0 0 30 2 *":             "never comes",
		"CRON_TZ=Mars 0 * * * *": `no time zone "Mars"`,
		"TZ= 0 * * * *":          `no time zone ""`,
	} {
		err := Check(text)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("the schedule %q ", text))) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func mustParse(t testing.TB, text string) *expression {
	t.Helper()
	e, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestNext(t *testing.T) {
	for _, c := range []struct{ text, from, want string }{
		// Europe's clocks are put forward on March 29, from 2 to 3, and back on October 25, from 3 to 2.
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T12:00+01:00", "29T03:00+02 30T02:30+02"},
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00+02:00", "25T02:30+02 26T02:30+01"},
		{"CRON_TZ=Europe/Berlin 0 3 * * *", "2026-03-28T12:00+01:00", "29T03:00+02 30T03:00+02"},
		{"CRON_TZ=Europe/Berlin 0 * * * *", "2026-03-29T00:30+01:00", "29T01:00+01 29T03:00+02 29T04:00+02"},
		{"CRON_TZ=Europe/Berlin @hourly", "2026-10-25T01:30+02:00", "25T02:00+02 25T02:00+01 25T03:00+01"},
		{"CRON_TZ=Europe/Berlin @daily", "2026-10-24T12:00+02:00", "25T00:00+02 26T00:00+01"},
		{"CRON_TZ=Europe/Berlin 0,30 2 * * *", "2026-03-28T12:00+01:00", "29T03:00+02 30T02:00+02"},
		// No midnight on that day.
		{"CRON_TZ=America/Sao_Paulo 0 0 * * *", "2018-11-02T12:00-03:00", "03T00:00-03 04T01:00-02 05T00:00-02"},
		// Half an hour; and a day that there never was.
		{"CRON_TZ=Australia/Lord_Howe */15 * * * *", "2026-04-05T01:31+11:00", "05T01:45+11 05T01:30+1030 05T01:45+1030"},
		{"CRON_TZ=Pacific/Apia 0 12 * * *", "2011-12-29T00:00-10:00", "29T12:00-10 31T00:00+14 31T12:00+14"},
		// Either day will do.
		{"CRON_TZ=UTC 0 0 13 * FRI", "2026-11-08T00:00+00:00", "13T00:00Z 20T00:00Z"},
		{"CRON_TZ=UTC 0 0 13 * FRI", "2026-12-12T00:00+00:00", "13T00:00Z 18T00:00Z"},
	} {
		e := mustParse(t, c.text)
		at, err := time.Parse("2006-01-02T15:04Z07:00", c.from)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range strings.Fields(c.want) {
			at = e.next(at)
			got := at.Format("02T15:04Z07")
			if _, offset := at.Zone(); offset%3600 != 0 {
				got = at.Format("02T15:04Z0700")
			}
			if got != want {
				t.Errorf("%s from %s: %v, want %s", c.text, c.from, at, want)
			}
		}
	}
}

// TestNextModel compares with a clock that is looked at every minute, around changes of clocks.
func TestNextModel(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 100 {
		c := []struct {
			zone string
			near time.Time
		}{
			{"Europe/Berlin", time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC)}, {"Europe/Berlin", time.Date(2026, 10, 24, 22, 0, 0, 0, time.UTC)},
			{"America/Sao_Paulo", time.Date(2018, 11, 4, 1, 0, 0, 0, time.UTC)}, {"America/Sao_Paulo", time.Date(2018, 2, 18, 0, 0, 0, 0, time.UTC)},
			{"Australia/Lord_Howe", time.Date(2026, 4, 4, 14, 0, 0, 0, time.UTC)}, {"Pacific/Apia", time.Date(2011, 12, 30, 8, 0, 0, 0, time.UTC)},
			{"Asia/Kathmandu", time.Date(1985, 12, 31, 17, 0, 0, 0, time.UTC)},
		}[rnd.IntN(7)]
		place, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		minutes, hours := some(rnd, 60), some(rnd, 24)
		any := rnd.IntN(2) == 0
		text := fmt.Sprintf("CRON_TZ=%s %s %s * * *", c.zone, list(minutes), list(hours))
		if any {
			hours = nil
			text = fmt.Sprintf("CRON_TZ=%s %s * * * *", c.zone, list(minutes))
		}
		e := mustParse(t, text)
		at := c.near
		for _, want := range model(place, c.near, minutes, hours) {
			if at = e.next(at); !at.Equal(want) {
				t.Fatalf("seed %d: %s near %v: %v, want %v", seed, text, c.near.In(place), at, want.In(place))
			}
		}
	}
}

// model gives all times of the six hours after t.
func model(place *time.Location, t time.Time, minutes, hours []int) (all []time.Time) {
	shown := wall(t.In(place)) // the latest that the clock has shown
	for end := t.Add(6 * time.Hour); t.Before(end); {
		t = t.Add(time.Minute)
		now := wall(t.In(place))
		if hours == nil {
			if slices.Contains(minutes, now.Minute()) {
				all = append(all, t)
			}
			continue
		}
		due := false
		for ; shown.Before(now); shown = shown.Add(time.Minute) {
			next := shown.Add(time.Minute)
			due = due || slices.Contains(minutes, next.Minute()) && slices.Contains(hours, next.Hour())
		}
		if due {
			all = append(all, t)
		}
	}
	return all
}

func some(rnd *rand.Rand, below int) []int { return rnd.Perm(below)[:1+rnd.IntN(below/4)] }

func list(n []int) string { return strings.ReplaceAll(strings.Trim(fmt.Sprint(n), "[]"), " ", ",") }

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0 * * * *", "@daily", "CRON_TZ=Europe/Berlin 30 2 29 2 *", "*/7 1-3,5 L * FRI#2", "TZ= @every 1s"} {
		f.Add(s, int64(1774745999))
	}
	f.Fuzz(func(t *testing.T, text string, at int64) {
		e, err := parse(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n") {
				t.Errorf("%q: more than a line: %v", text, err)
			}
			return
		}
		from := time.Unix(at&0xffffffff, 0)
		if n := e.next(from); !n.IsZero() && !n.After(from) {
			t.Errorf("%q: %v is not after %v", text, n, from)
		}
	})
}
