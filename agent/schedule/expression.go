package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/netresearch/go-cron"
)

// expression is a schedule on the clock on the wall of a place.
type expression struct {
	cron  cron.Schedule
	place *time.Location
	fixed bool // it names hours
}

// Check tells what is wrong with an expression.
func Check(text string) error {
	_, err := parse(text)
	return err
}

func parse(text string) (*expression, error) {
	e, err := parseText(text)
	if err != nil {
		return nil, fmt.Errorf("the schedule %q can't be right: %w", text, err)
	}
	if e.next(time.Now()).IsZero() {
		return nil, fmt.Errorf("the schedule %q never comes: no month has that day", text)
	}
	return e, nil
}

func parseText(text string) (*expression, error) {
	e := &expression{place: time.Local}
	fields := strings.Fields(text)
	for len(fields) > 0 && e.place == time.Local {
		zone, ok := strings.CutPrefix(strings.TrimPrefix(fields[0], "CRON_"), "TZ=")
		if !ok {
			break
		}
		place, err := time.LoadLocation(zone)
		if err != nil || zone == "" {
			return nil, fmt.Errorf("this machine knows no time zone %q", zone)
		}
		e.place, fields = place, fields[1:]
	}
	switch {
	case len(fields) == 0:
		return nil, errors.New("write five fields (minute, hour, day of the month, month, day of the week), or @hourly, @daily, @weekly, @monthly or @yearly")
	case strings.HasPrefix(fields[0], "@every"):
		return nil, errors.New("@every would count from the start of the agent: write five fields, as */15 * * * * for every 15 minutes")
	case len(fields) != 5 && !strings.HasPrefix(fields[0], "@"):
		return nil, fmt.Errorf("it has %d of the five fields minute, hour, day of the month, month and day of the week", len(fields))
	}
	// With DowOrDom: the library's own rule for two day fields isn't that of cron.
	parser, err := cron.TryNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.DowOrDom)
	if err != nil {
		return nil, err
	}
	if e.cron, err = parser.Parse(strings.Join(fields, " ")); err != nil {
		return nil, err
	}
	e.fixed = fields[0] != "@hourly" && (len(fields) == 1 || fields[1][0] != '*' && fields[1][0] != '?')
	return e, nil
}

// next is the first time after t, or zero if there is none.
//
// The library calculates on a clock that is never changed, UTC; what it says is the wall's clock. Its own rules for changes of the clock aren't those of cron: it runs fixed times twice.
func (e *expression) next(t time.Time) time.Time {
	t = t.In(e.place)
	if e.fixed {
		return e.nextFixed(t)
	}
	for after := wall(t); ; {
		n := e.cron.Next(after)
		if n.IsZero() {
			return n
		}
		_, end := t.ZoneBounds()
		if c := instant(n, t); end.IsZero() || c.Before(end) {
			return c
		}
		t = end
		after = wall(end).Add(-time.Second) // the moment of the change is the first that counts
	}
}

// longestGap is more than any clock was ever put forward, and than any place is away from UTC.
const longestGap = 26 * time.Hour

func (e *expression) nextFixed(t time.Time) time.Time {
	for n := wall(t).Add(-longestGap); ; {
		if n = e.cron.Next(n); n.IsZero() {
			return n
		}
		if c := e.moment(n); c.After(t) {
			return c
		}
	}
}

// moment is when the wall's clock shows n for the first time, or is put forward past it.
func (e *expression) moment(n time.Time) time.Time {
	for t := n.Add(-longestGap).In(e.place); ; {
		start, end := t.ZoneBounds()
		c := instant(n, t)
		if c.Before(start) {
			return start
		}
		if end.IsZero() || c.Before(end) {
			return c
		}
		t = end
	}
}

// wall is what the clock on the wall shows, as if it were UTC.
func wall(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

// instant is when the clock shows n, if it always went as it does at t.
func instant(n, t time.Time) time.Time {
	_, offset := t.Zone()
	return n.Add(-time.Duration(offset) * time.Second).In(t.Location())
}
