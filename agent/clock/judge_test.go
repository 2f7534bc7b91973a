package clock

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func peer(name string, offset time.Duration) Reading {
	return Reading{Kind: KindPeer, Name: name, Known: true, Offset: offset, Error: time.Millisecond}
}

func server(name string, offset time.Duration) Reading {
	return Reading{Kind: KindNTP, Name: name, Known: true, Offset: offset, Error: 20 * time.Millisecond, Synchronised: true}
}

func synced(r Reading) Reading { r.Synchronised = true; return r }

func kernel(synced bool) Reading {
	return Reading{Kind: KindKernel, Known: synced, Synchronised: synced, Error: 50 * time.Millisecond}
}

func TestJudge(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	unknown := Reading{Kind: KindPeer, Name: "z", Problem: "away"}
	for name, c := range map[string]struct {
		readings []Reading
		known    bool
		paused   bool
		reason   string
	}{
		"nothing is known":                       {[]Reading{kernel(false), unknown}, false, false, ""},
		"the kernel alone":                       {[]Reading{kernel(true)}, true, false, ""},
		"a kernel that may be wrong by much":     {[]Reading{{Kind: KindKernel, Known: true, Synchronised: true, Error: 3 * s}}, false, false, ""},
		"a server says it is right":              {[]Reading{server("t", 20*ms)}, true, false, ""},
		"ahead of a server":                      {[]Reading{server("t", 600*ms)}, true, true, "is 600ms ahead (by t, ± 20ms)"},
		"behind a server":                        {[]Reading{server("t", -2*s)}, true, true, "is 2s behind (by t"},
		"just within":                            {[]Reading{server("t", 499*ms)}, true, false, ""},
		"a server is believed, not the kernel":   {[]Reading{server("t", 2*s), kernel(true)}, true, true, "by t"},
		"a server is believed, not the peers":    {[]Reading{server("t", 0), peer("b", 3*s), peer("c", 3*s)}, true, false, ""},
		"of three servers one is wrong":          {[]Reading{server("t", 0), server("u", 4*s), server("v", ms)}, true, false, ""},
		"two servers differ, this clock decides": {[]Reading{server("t", 0), server("u", 4*s)}, true, false, ""},
		"two servers differ, a peer decides":     {[]Reading{server("t", 10*ms), server("u", 4*s), synced(peer("b", 4*s)), kernel(false)}, true, true, "s ahead (by b, t, u (synchronised)"},
		"all peers agree":                        {[]Reading{peer("b", ms), peer("c", -ms)}, true, false, ""},
		"one wrong peer of two":                  {[]Reading{peer("b", 10*s), peer("c", ms)}, true, false, ""},
		"this clock is wrong":                    {[]Reading{peer("b", 10*s), peer("c", 10*s+ms)}, true, true, "is 10s ahead (by b, c"},
		"this clock is wrong, whatever the kernel says": {
			[]Reading{peer("b", -10*s), peer("c", -10*s+ms), kernel(true)}, true, true, "behind (by b, c"},
		"one wrong peer of three":            {[]Reading{peer("b", 10*s), peer("c", ms), peer("d", -ms)}, true, false, ""},
		"two wrong peers of four":            {[]Reading{peer("b", 10*s), peer("c", -9*s), peer("d", ms), peer("e", 0)}, true, false, ""},
		"two nodes differ":                   {[]Reading{peer("b", 10*s)}, true, true, "of this machine and of b differ by more than 500ms"},
		"two nodes differ by little":         {[]Reading{peer("b", 300*ms)}, true, false, ""},
		"two nodes differ, this is synced":   {[]Reading{peer("b", 10*s), kernel(true)}, true, false, ""},
		"two nodes differ, that is synced":   {[]Reading{synced(peer("b", 10*s)), kernel(false)}, true, true, "is 10s ahead (by b (synchronised)"},
		"two nodes differ, both are synced":  {[]Reading{synced(peer("b", 10*s)), kernel(true)}, true, true, "nothing tells which is right"},
		"two against two":                    {[]Reading{peer("b", 10*s), peer("c", 10*s), peer("d", 0)}, true, true, "b, c, d differ by more"},
		"two against two, both others apart": {[]Reading{peer("b", 10*s), peer("c", 10*s), peer("d", 12*s)}, true, true, "is 10s ahead"},
		"a clock that has lost its date":     {[]Reading{peer("b", 20*365*24*time.Hour), peer("c", 0)}, true, false, ""},
		"silent peers don't vote":            {[]Reading{unknown, unknown, peer("b", ms)}, true, false, ""},
	} {
		e := judge(c.readings, DefaultLimit)
		paused := e.pause(false, DefaultLimit)
		if e.Known != c.known || paused != c.paused {
			t.Errorf("%s: known %v, paused %v, by %s, offset %s ± %s", name, e.Known, paused, e.By, e.Offset, e.Error)
		}
		if reason := e.reason(DefaultLimit); c.paused && (!strings.Contains(reason, c.reason) || strings.Contains(reason, "\n")) {
			t.Errorf("%s: %s", name, reason)
		}
	}
}

// TestPauseDoesNotFlutter: around the bound it stays as it is, and what isn't known changes nothing.
func TestPauseDoesNotFlutter(t *testing.T) {
	paused := false
	for i, c := range []struct {
		e    Evidence
		want bool
	}{
		{Evidence{Known: true, Offset: 499 * time.Millisecond, Error: 200 * time.Millisecond}, false},
		{Evidence{}, false},
		{Evidence{Known: true, Offset: -501 * time.Millisecond}, true},
		{Evidence{}, true},
		{Evidence{Known: true, Offset: -490 * time.Millisecond}, true},
		{Evidence{Known: true, Offset: 300 * time.Millisecond, Error: 200 * time.Millisecond}, true},
		{Evidence{Known: true, Offset: 300 * time.Millisecond, Error: 140 * time.Millisecond}, false},
		{Evidence{Known: true, Offset: 490 * time.Millisecond}, false},
		{Evidence{Known: true, Disagree: true}, true},
	} {
		if paused = c.e.pause(paused, DefaultLimit); paused != c.want {
			t.Errorf("%d: %+v: paused %v", i, c.e, paused)
		}
	}
}

func TestKernel(t *testing.T) {
	for _, c := range []struct {
		state         int
		t             unix.Timex
		known         bool
		offset, error time.Duration
	}{
		{timeError, unix.Timex{}, false, 0, 0},
		{0, unix.Timex{Status: staUnsync}, false, 0, 0},
		{0, unix.Timex{Offset: 1500, Maxerror: 20_000}, true, -1500 * time.Microsecond, 20 * time.Millisecond},
		{0, unix.Timex{Status: staNano, Offset: -1500, Maxerror: 20_000}, true, 1500, 20 * time.Millisecond},
	} {
		r := kernelReading(c.state, &c.t)
		if r.Known != c.known || r.Synchronised != c.known || r.Offset != c.offset || r.Error != c.error || (r.Problem == "") != c.known {
			t.Errorf("%d %+v: %+v", c.state, c.t, r)
		}
	}
	if r := readKernel(); r.Known == (r.Problem != "") || Synchronised() != r.Synchronised {
		t.Errorf("the kernel here: %+v", r)
	}
}
