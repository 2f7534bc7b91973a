package damage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"graphvol/integration/rig"
)

// sweep damages copies of a specimen, one after the other, and counts what came of it.
type sweep struct {
	*specimen
	t     *testing.T
	dir   string // the copy
	live  model  // the backing
	count map[string]map[string]int
}

func newSweep(t *testing.T, crash bool) *sweep {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		dir = rig.Tmpfs(t, "256m")
	}
	s := &sweep{specimen: newSpecimen(t, crash), t: t, dir: filepath.Join(dir, "state"), count: map[string]map[string]int{}}
	s.live = treeOf(t, s.backing)
	s.put(t, s.dir)
	t.Cleanup(s.tell)
	return s
}

// tell logs the figures.
func (s *sweep) tell() {
	for _, k := range slices.Sorted(maps.Keys(s.count)) {
		s.t.Logf("%-22s %v", k, s.count[k])
	}
}

// try damages one file of the copy, looks at what comes of it, and mends the copy. deep: the next snapshot, and a rebuild, are
// looked at too.
func (s *sweep) try(name, what string, deep bool, damage func(path string) error) {
	s.t.Helper()
	if err := damage(filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
	changed, result, err := s.look(deep)
	if err != nil {
		result = "BREACH"
		s.t.Errorf("%s, %s: %v", name, what, err)
	}
	k := kind(name)
	if s.count[k] == nil {
		s.count[k] = map[string]int{}
	}
	s.count[k][result]++
	if changed {
		s.put(s.t, s.dir)
	} else if err := s.restore(s.dir, name); err != nil {
		s.t.Fatal(err)
	}
}

// look inspects the copy; changed tells whether that left it other than it was.
func (s *sweep) look(deep bool) (changed bool, result string, err error) {
	ctx := s.t.Context()
	f, err := inspect(ctx, s.dir, s.want)
	if err != nil {
		return true, "", err
	}
	switch {
	case f.harmless():
		result = "harmless"
	case f.refused != nil:
		result = "refused"
	default:
		result = "named"
	}
	if !deep {
		return f.refused != nil, result, nil
	}
	if f.harmless() {
		unable, err := takeNext(ctx, s.dir, s.backing, s.live)
		if err == nil && unable != nil {
			err = fmt.Errorf("verify is clean, and no snapshot can be taken: %w", unable)
		}
		return true, result, err
	}
	return true, result, s.mend()
}

// mend rebuilds the copy's index and takes a snapshot: all must be whole then, but for what the snapshots before have lost.
func (s *sweep) mend() error {
	ctx := s.t.Context()
	res, err := rebuild(ctx, s.dir, true)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	unable, err := takeNext(ctx, s.dir, s.backing, s.live)
	if err == nil {
		err = unable
	}
	if err != nil {
		return fmt.Errorf("after a rebuild: %w", err)
	}
	want := maps.Clone(s.want)
	want["next"] = s.live
	if len(res.Aside) > 0 { // a snapshot that isn't in the catalogue any more, as the rebuild has said
		for name := range s.want {
			if !strings.Contains(fmt.Sprint(res.Problems), name) {
				continue
			}
			delete(want, name)
		}
	}
	f, err := inspect(ctx, s.dir, want)
	if err == nil && f.told["next"] != nil {
		err = f.told["next"]
	}
	if err != nil {
		return fmt.Errorf("after a rebuild and a snapshot: %w", err)
	}
	return nil
}

// flip changes bits of one byte.
func flip(at int, mask byte) func(path string) error {
	return func(path string) error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		var p [1]byte
		if _, err := f.ReadAt(p[:], int64(at)); err != nil {
			return err
		}
		p[0] ^= mask
		_, err = f.WriteAt(p[:], int64(at))
		return err
	}
}

func cut(n int) func(path string) error {
	return func(path string) error { return os.Truncate(path, int64(n)) }
}

// mask flips one bit mostly.
func mask(r *rand.Rand) byte {
	if r.IntN(4) == 0 {
		return byte(1 + r.IntN(255))
	}
	return 1 << r.IntN(8)
}

// meaningful cuts off the zeros at the end of a file.
func meaningful(p []byte) int { return len(strings.TrimRight(string(p), "\x00")) }

func TestFlips(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(map[bool]string{false: "unmounted", true: "killed"}[crash], func(t *testing.T) {
			r := random(t)
			s := newSweep(t, crash)
			if _, result, err := s.look(true); err != nil || result != "harmless" {
				t.Fatalf("undamaged: %s, %v", result, err)
			}
			s.put(t, s.dir)
			names := slices.DeleteFunc(s.names(), func(n string) bool { return len(s.files[n]) == 0 || !strings.HasPrefix(n, *sweepOnly) })
			if *sweepStep > 0 {
				s.all(r, names)
				return
			}
			for range *sweepRuns / 2 {
				name := names[r.IntN(len(names))]
				at, m := r.IntN(max(1, meaningful(s.files[name]))), mask(r)
				s.try(name, fmt.Sprintf("byte %d ^ %#x", at, m), strings.HasPrefix(name, "epochs/") || r.IntN(3) == 0, flip(at, m))
			}
		})
	}
}

// all flips a bit of every byte, or every n-th. Of logs some are enough, and of the zeros at the end of files none.
func (s *sweep) all(r *rand.Rand, names []string) {
	for _, name := range names {
		step := *sweepStep
		if strings.HasPrefix(name, "log/") {
			step = max(step, 97)
		}
		for at := r.IntN(step); at < meaningful(s.files[name]); at += step {
			if end, ok := s.t.Deadline(); ok && time.Until(end) < 2*limit {
				s.t.Logf("no time left at byte %d of %s", at, name)
				return
			}
			m := mask(r)
			deep := strings.HasPrefix(name, "epochs/") || r.IntN(8) == 0 // verify doesn't look at marks
			s.try(name, fmt.Sprintf("byte %d ^ %#x", at, m), deep, flip(at, m))
		}
	}
}

// wound is one way to damage a file.
type wound struct {
	name, what string
	do         func(path string) error
}

func TestCuts(t *testing.T) {
	r := random(t)
	s := newSweep(t, false)
	var all []wound
	for _, name := range s.names() {
		n := len(s.files[name])
		all = append(all, wound{name, "removed", os.Remove})
		for _, to := range []int{0, n / 2, n - 1, r.IntN(n + 1), r.IntN(n + 1)} {
			if to >= 0 && to < n {
				all = append(all, wound{name, fmt.Sprintf("cut to %d of %d bytes", to, n), cut(to)})
			}
		}
	}
	for _, w := range some(r, all, 20) {
		s.try(w.name, w.what, true, w.do)
	}
}

// TestFlipsByCommand is TestFlips with the command itself: it ends with 0 or 1, and one line a problem.
func TestFlipsByCommand(t *testing.T) {
	r := random(t)
	s := newSweep(t, false)
	bin, err := rig.Binary()
	if err != nil {
		t.Fatal(err)
	}
	names := slices.DeleteFunc(s.names(), func(n string) bool { return len(s.files[n]) == 0 })
	for range *sweepRuns / 10 {
		name := names[r.IntN(len(names))]
		at, m := r.IntN(max(1, meaningful(s.files[name]))), mask(r)
		if err := flip(at, m)(filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
		f, err := inspect(t.Context(), s.dir, s.want)
		if err != nil {
			t.Errorf("%s, byte %d ^ %#x: %v", name, at, m, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		out, err := exec.CommandContext(ctx, bin, "verify", s.dir, "--read-data").CombinedOutput()
		cancel()
		var exit *exec.ExitError
		failed := errors.As(err, &exit) && exit.ExitCode() == 1
		if failed == f.harmless() || err != nil && !failed || bytes.Contains(out, []byte("goroutine")) {
			t.Errorf("%s, byte %d ^ %#x: harmless %v, the command says %v: %s", name, at, m, f.harmless(), err, out)
		}
		s.put(t, s.dir)
	}
}
