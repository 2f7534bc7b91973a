package clock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"graphvol/agent/clock/clocktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wrong is a clock that is off by what is stored in it.
type wrong struct{ atomic.Int64 }

// now keeps the monotonic reading as it is: only the wall is wrong.
func (w *wrong) now() time.Time { return time.Now().Round(0).Add(time.Duration(w.Load())) }

// localPeer is a peer with a clock of its own, asked over a connection.
func localPeer(t *testing.T, name string, theirs, ours *wrong, synced bool) Peer {
	addr := clocktest.Listen(t, func([]byte) []byte {
		received := theirs.now()
		return fmt.Appendf(nil, "%d %d", received.UnixNano(), theirs.now().UnixNano())
	})
	return Peer{name, func(ctx context.Context) (s Stamps, err error) {
		c, err := new(net.Dialer).DialContext(ctx, "udp", addr)
		if err != nil {
			return s, err
		}
		defer c.Close()
		deadline, _ := ctx.Deadline()
		_ = c.SetDeadline(deadline)
		buf := make([]byte, 64)
		s.Sent = ours.now()
		if _, err = c.Write([]byte{'?'}); err != nil {
			return s, err
		}
		n, err := c.Read(buf)
		if err != nil {
			return s, err
		}
		s.Arrived, s.Synchronised = ours.now(), synced
		var received, answered int64
		_, err = fmt.Sscan(string(buf[:n]), &received, &answered)
		s.Received, s.Answered = time.Unix(0, received), time.Unix(0, answered)
		return s, err
	}}
}

func unsynced() Reading { return kernel(false) }

// measure measures once; again if a busy machine has made an exchange slow.
func measure(t *testing.T, m *Monitor) (e Evidence) {
	t.Helper()
	for range 50 {
		var err error
		if e, err = m.Measure(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(e.Readings, func(r Reading) bool { return r.Kind != KindKernel && (!r.Known || r.RoundTrip > 40*time.Millisecond) }) {
			break
		}
	}
	return e
}

func near(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if (got - want).Abs() > 30*time.Millisecond {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestTimeServer(t *testing.T) {
	var theirs wrong
	addr := clocktest.NTP(t, theirs.now, nil)
	m := New(Config{Servers: func() []string { return []string{addr} }})
	m.kernel = unsynced
	for _, c := range []struct {
		server time.Duration
		paused bool
		word   string
	}{{0, false, ""}, {400 * time.Millisecond, false, ""}, {700 * time.Millisecond, true, "behind"}, {480 * time.Millisecond, true, "surely below 450ms"}, {0, false, ""}, {-3 * time.Second, true, "s ahead (by "}, {100 * time.Millisecond, false, ""}} {
		theirs.Store(int64(c.server))
		e := measure(t, m)
		near(t, "offset", e.Offset, -c.server)
		if !e.Known || e.By != addr || e.Error <= 0 || e.Error > 200*time.Millisecond {
			t.Errorf("server %s: %+v", c.server, e)
		}
		if why, paused := m.Paused(); paused != c.paused || !strings.Contains(why, c.word) {
			t.Errorf("server %s ahead: paused %v (%s)", c.server, paused, why)
		}
	}
}

// TestOwnClock: it is this machine's clock that is wrong, with a server that is right.
func TestOwnClock(t *testing.T) {
	var ours wrong
	addr := clocktest.NTP(t, time.Now, nil)
	m := New(Config{Servers: func() []string { return []string{addr} }, Now: ours.now})
	ours.Store(int64(-4 * time.Second))
	near(t, "offset", measure(t, m).Offset, -4*time.Second)
	if why, paused := m.Paused(); !paused || !strings.Contains(why, "s behind (by "+addr) {
		t.Errorf("paused %v: %s", paused, why)
	}
}

func TestUselessServers(t *testing.T) {
	for name, change := range map[string]func([]byte){
		"not synchronised":     func(p []byte) { p[0] |= 3 << 6 },
		"kiss of death":        func(p []byte) { p[1] = 0; copy(p[12:], "RATE") },
		"wrong by itself":      func(p []byte) { binary.BigEndian.PutUint32(p[8:], 2<<16) },
		"answers another ask":  func(p []byte) { p[24]++ },
		"slow, and so useless": func([]byte) { time.Sleep(600 * time.Millisecond) },
	} {
		t.Run(name, func(t *testing.T) {
			var far wrong
			far.Store(int64(time.Hour))
			addr := clocktest.NTP(t, far.now, change)
			m := New(Config{Servers: func() []string { return []string{addr} }})
			m.kernel = unsynced
			e, err := m.Measure(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if r := e.Readings[0]; e.Known || r.Known || !strings.Contains(r.Problem, addr) {
				t.Errorf("%+v", e)
			}
			if _, paused := m.Paused(); paused {
				t.Error("paused")
			}
		})
	}
}

// TestPeers: three nodes ask each other over connections, and one clock is wrong: its own node pauses, the others don't.
func TestPeers(t *testing.T) {
	clocks := map[string]*wrong{"a": {}, "b": {}, "c": {}}
	monitors := map[string]*Monitor{}
	for name, ours := range clocks {
		var peers []Peer
		for other, theirs := range clocks {
			if other != name {
				peers = append(peers, localPeer(t, other, theirs, ours, false))
			}
		}
		monitors[name] = New(Config{Peers: func() []Peer { return peers }, Now: ours.now})
		monitors[name].kernel = unsynced
	}
	check := func(bad string) {
		t.Helper()
		for name, m := range monitors {
			e := measure(t, m)
			why, paused := m.Paused()
			if paused != (name == bad) || !e.Known {
				t.Errorf("%s is wrong: %s pauses: %v (%s), %+v", bad, name, paused, why, e)
			}
			if name == bad {
				near(t, "offset of "+bad, e.Offset, time.Duration(clocks[bad].Load()))
			}
		}
	}
	check("")
	for name, off := range map[string]time.Duration{"a": 10 * time.Second, "b": -800 * time.Millisecond, "c": 50 * 365 * 24 * time.Hour} {
		clocks[name].Store(int64(off))
		check(name)
		clocks[name].Store(0)
		check("")
	}
}

// TestSlowPeer: of several exchanges the quickest counts, and one that is slow for good tells nothing.
func TestSlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ahead = 3 * time.Second
		trips := []time.Duration{300 * time.Millisecond, 900 * time.Millisecond, 40 * time.Millisecond, 700 * time.Millisecond}
		n := 0
		p := Peer{"b", func(context.Context) (s Stamps, err error) {
			trip := trips[n%len(trips)]
			n++
			s.Sent = time.Now()
			time.Sleep(trip) // all of it on the way there, so that the offset is wrong by half of it
			s.Received = time.Now().Add(-ahead)
			s.Answered, s.Arrived = s.Received, time.Now()
			return s, nil
		}}
		r := p.ask(t.Context(), DefaultLimit)
		if !r.Known || r.RoundTrip != 40*time.Millisecond || r.Error != 20*time.Millisecond || r.Offset != ahead-20*time.Millisecond {
			t.Errorf("%+v", r)
		}
		trips = []time.Duration{501 * time.Millisecond}
		if r := p.ask(t.Context(), DefaultLimit); r.Known || !strings.Contains(r.Problem, "501ms") {
			t.Errorf("%+v", r)
		}
		p.Exchange = func(ctx context.Context) (Stamps, error) { <-ctx.Done(); return Stamps{}, ctx.Err() }
		start := time.Now()
		if r := p.ask(t.Context(), DefaultLimit); r.Known || time.Since(start) > measureBound {
			t.Errorf("hangs: %+v after %s", r, time.Since(start))
		}
	})
}

func TestStampsThatCannotBe(t *testing.T) {
	now := time.Now()
	later := func(d time.Duration) time.Time { return now.Add(d) }
	wall := func(d time.Duration) time.Time { return now.Round(0).Add(d) }
	for name, s := range map[string]Stamps{
		"answered before it came":    {Sent: now, Received: wall(5), Answered: wall(4), Arrived: later(9)},
		"longer there than all took": {Sent: now, Received: wall(0), Answered: wall(time.Second), Arrived: later(time.Millisecond)},
	} {
		if _, _, err := s.offset(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if off, trip, err := (Stamps{Sent: now, Received: time.Unix(0, 0), Answered: time.Unix(0, 0), Arrived: later(8)}).offset(); err != nil || trip != 8 || off < 50*365*24*time.Hour {
		t.Errorf("a clock at its beginning: %s, %s, %v", off, trip, err)
	}
}

// TestRun: measurements are never more than 64 s apart, however long they take; one comes at once when the clock is set; nothing else depends on the wall clock.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ours wrong
		var takes atomic.Int64
		p := Peer{"b", func(context.Context) (s Stamps, err error) {
			s.Sent = ours.now()
			s.Received = time.Now()
			time.Sleep(time.Duration(takes.Load()))
			s.Answered, s.Arrived, s.Synchronised = time.Now(), ours.now(), true
			return s, nil
		}}
		m := New(Config{Peers: func() []Peer { return []Peer{p} }, Now: ours.now})
		m.kernel = unsynced
		if _, ok := m.Newest(); ok {
			t.Error("evidence before anything was measured")
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { m.Run(ctx); close(ended) }()
		synctest.Wait()
		last, ok := m.Newest()
		if !ok {
			t.Fatal("nothing was measured at once")
		}
		for i := range 600 {
			takes.Store(int64(time.Duration(i%5) * 900 * time.Millisecond))
			time.Sleep(time.Second)
			synctest.Wait()
			if e, _ := m.Newest(); e.ended != last.ended {
				if gap := e.ended.mono.Sub(last.ended.mono); gap > DefaultEvery {
					t.Errorf("two measurements are %s apart", gap)
				}
				last = e
			} else if age := time.Since(e.ended.mono); age > DefaultEvery {
				t.Fatalf("the newest measurement is %s old", age)
			}
		}
		takes.Store(0)
		for _, off := range []time.Duration{24 * time.Hour, 0, -2 * time.Second, 0} {
			ours.Store(int64(off))
			time.Sleep(2 * lookEvery)
			synctest.Wait()
			if why, paused := m.Paused(); paused != (off != 0) {
				t.Errorf("off by %s for two seconds: paused %v (%s)", off, paused, why)
			}
		}
		cancel()
		<-ended
	})
}

// TestSetDuringMeasurement: what was measured while the clock was set is measured again.
func TestSetDuringMeasurement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ours wrong
		asked := 0
		p := Peer{"b", func(context.Context) (s Stamps, err error) {
			s = Stamps{Sent: ours.now(), Received: time.Now(), Answered: time.Now(), Arrived: ours.now(), Synchronised: true}
			if asked++; asked == 1 {
				ours.Store(int64(time.Minute))
			}
			return s, nil
		}}
		m := New(Config{Peers: func() []Peer { return []Peer{p} }, Now: ours.now})
		m.kernel = unsynced
		if e, err := m.Measure(t.Context()); err != nil || e.Offset != time.Minute || asked != 2 {
			t.Errorf("asked %d times: %+v", asked, e)
		}
		asked = 0
		p.Exchange = func(context.Context) (Stamps, error) {
			asked++
			sent := time.Now()
			time.Sleep(time.Millisecond)
			return Stamps{Sent: sent.Round(0).Add(time.Hour), Received: sent, Answered: sent, Arrived: time.Now()}, nil
		}
		if r := p.ask(t.Context(), DefaultLimit); r.Known {
			t.Errorf("an exchange during which the clock was set counts: %+v", r)
		}
	})
}

func TestMeasureIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		p := Peer{"b", func(context.Context) (Stamps, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			now := time.Now()
			return Stamps{Sent: now, Received: now, Answered: now, Arrived: now}, nil
		}}
		m := New(Config{Peers: func() []Peer { return []Peer{p} }})
		for range 10 {
			go func() { _, _ = m.Measure(t.Context()) }()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := asked.Load(); n != 2 { // the first one's, and one for all that came during it
			t.Errorf("asked %d times", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		before, _ := m.Newest()
		_, err := m.Measure(ctx)
		if after, _ := m.Newest(); !errors.Is(err, context.DeadlineExceeded) || after.ended != before.ended {
			t.Errorf("a measurement that was broken off: %v, and counts: %v", err, after.ended != before.ended)
		}
	})
}
