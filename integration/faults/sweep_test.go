package faults

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

// seed is that of a test, printed.
func seed(t *testing.T) uint64 {
	n := *sweepSeed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./integration/faults -run '^%s$' -faults.seed %d", n, t.Name(), n)
	return n
}

func newSubject(t *testing.T, seed uint64) *subject {
	s := &subject{t: t, disk: NewDisk(t)}
	s.vol = rig.Mounted(t, volume.Options{State: s.disk.Dir})
	s.db = newDatabase(t, s.vol.Mount, seed)
	t.Cleanup(s.db.close)
	s.check(map[string]map[string][]byte{})
	return s
}

// kinds of faults: each with every kind of call that it can hit.
func faults(count map[Kind]int) (all []Fault) {
	for _, k := range Kinds() {
		if *sweepKind != "" && *sweepKind != k.String() {
			continue
		}
		for at := range count[k] {
			for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
				if errno == syscall.ENOSPC && k&(Create|Write|Fsync|Fallocate|Truncate|Rename|Mkdir|Link) == 0 {
					continue
				}
				all = append(all, Fault{Kinds: k, At: at, Errno: errno}, Fault{Kinds: k, At: at, Errno: errno, All: true})
			}
			if k == Write {
				all = append(all, Fault{Kinds: k, At: at, Short: true}, Fault{Kinds: k, At: at, Short: true, All: true})
			}
		}
	}
	return all
}

// TestSweep fails every call of a round, one after the other, alone and with all that follow. The database never notices, a command that
// fails says why, and what comes after the fault is as if there had been none.
func TestSweep(t *testing.T) {
	n := seed(t)
	s := newSubject(t, n)
	s.disk.Arm(Fault{At: 1 << 30})
	taken := s.work()
	_, count := s.disk.Disarm()
	s.check(taken)
	all := faults(count)
	t.Logf("a round makes %v calls: %d faults", count, len(all))
	if !*sweepAll {
		rand.New(rand.NewPCG(n, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:min(*sweepRuns, len(all))]
	}
	pid, before := s.descriptors()
	for i := range all {
		f := all[i]
		t.Run(fmt.Sprintf("%v", &f), func(t *testing.T) { s.fail(t, f) })
	}
	now, after := s.descriptors()
	if now != pid {
		t.Errorf("the server is process %d, and was %d", now, pid)
	}
	if len(after) > len(before)+4 { // some connections may be closing
		t.Errorf("the server has open: %v; before the faults it had: %v", after, before)
	}
}

// fail is one round with a fault.
func (s *subject) fail(t *testing.T, f Fault) {
	outer, inner := s.t, s.db.t
	s.t, s.db.t = t, t
	defer func() { s.t, s.db.t = outer, inner }()
	s.disk.Arm(f)
	taken := s.work()
	hit, _ := s.disk.Disarm()
	t.Logf("failed: %d calls, the first %v", len(hit), hit[:min(1, len(hit))])
	s.check(taken)
}
