package input

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/volume"
)

// TestClockJumps sets the machine's clock, so it wants -input.clock and a machine on which nothing else minds.
func TestClockJumps(t *testing.T) {
	if !*clock {
		t.Skip("-input.clock is not given: it sets the machine's clock")
	}
	n := seed(t)
	rng := rand.New(rand.NewPCG(n, 0))
	jump := clockOf(t)
	s := newSubject(t, rng, volume.Options{})
	for range *runs * 10 {
		s.change(s.Mount, 20)
		jump(time.Duration(rng.Int64N(int64(20*24*time.Hour))) - 10*24*time.Hour)
		switch rng.IntN(4) {
		case 0:
			must(t, s.KillServer(t.Context()))
		case 1, 2:
			s.behind(rng.IntN(2) == 0, false)
		}
		s.snapshot()
	}
	jump(0)
	before := names(t, s.Volume)
	must(t, s.Umount(t.Context()))
	for _, args := range [][]string{{"verify", s.StateDir(), "--read-data"}, {"rebuild", s.StateDir()}} {
		if _, err := s.Run(t.Context(), args...); err != nil {
			t.Error(err)
		}
	}
	must(t, s.Start(t.Context()))
	if after := names(t, s.Volume); !slices.Equal(after, before) {
		t.Errorf("the order after a rebuild is %q, it was %q", after, before)
	}
	s.snapshot()
}

// clockOf returns what sets the clock to so long after the right time, which it is set to at the end.
func clockOf(t *testing.T) func(off time.Duration) {
	t.Helper()
	began := time.Now() // with the monotonic clock's reading
	jump := func(off time.Duration) {
		t.Helper()
		now := unix.NsecToTimespec(began.Add(time.Since(began)).Add(off).UnixNano())
		must(t, unix.ClockSettime(unix.CLOCK_REALTIME, &now))
	}
	t.Cleanup(func() { jump(0) })
	return jump
}

// names are those of all snapshots, in the order in which they are listed.
func names(t *testing.T, v *volume.Volume) (all []string) {
	t.Helper()
	list, err := v.Snapshots(t.Context())
	must(t, err)
	for _, s := range list {
		all = append(all, s.Name)
	}
	return all
}
