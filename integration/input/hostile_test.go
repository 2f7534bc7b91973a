package input

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

const (
	memoryBound  = 256 << 20
	commandBound = 2 * time.Minute
	outputBound  = 1 << 30
	entryBound   = 20_000
)

// hostile is a volume whose store has forged snapshots beside an honest one.
type hostile struct {
	*volume.Volume
	t       *testing.T
	outside string // nothing may appear here
	started volume.Status
	used    int64 // memory of the server before any forged snapshot was looked at
	alone   int64 // memory of a command that does everything itself, for an honest snapshot
}

// TestHostileStore: snapshots that no volume could give, whose hashes are right, are browsed, compared, verified and restored. Neither
// the server nor a command dies, hangs, takes memory without bound, or writes where it wasn't told to, and nothing else of the volume suffers.
func TestHostileStore(t *testing.T) {
	h := newHostile(t)
	for _, tree := range hostileTrees() {
		t.Run(tree.name, func(t *testing.T) { h.in(t).online(tree) })
	}
	h.honest("after")
	must(t, h.Umount(t.Context()))
	for _, tree := range hostileTrees() {
		t.Run("offline/"+tree.name, func(t *testing.T) { h.in(t).offline(tree) })
	}
	// The newest snapshot but one is a forged one now, and they go.
	must(t, h.Start(t.Context()))
	h.run("prune", h.Mount)
	for _, tree := range hostileTrees() {
		h.run("delete", h.Mount, tree.name).check(t, false)
	}
	h.run("prune", h.Mount).check(t, false)
	h.run("verify", h.Mount, "--read-data").check(t, false)
	h.honest("last")
}

func newHostile(t *testing.T) *hostile {
	dir := t.TempDir()
	h := &hostile{Volume: rig.Mounted(t, volume.Options{Dir: dir}), t: t, outside: filepath.Join(dir, "outside")}
	mkdirs(t, h.outside, filepath.Join(h.Mount, "dir"))
	rig.WriteFile(t, filepath.Join(h.Mount, "data"), 3<<20)
	rig.WriteFile(t, filepath.Join(h.Mount, "dir", "file"), 5000)
	snapshotIs(t, h.Volume, "honest")
	must(t, h.Umount(t.Context()))
	f := newForger(t, h.StateDir())
	for _, tree := range hostileTrees() {
		s := f.begin()
		tree.make(s, h.outside)
		s.end(tree.name)
	}
	f.finish()
	// A command begins with this process's memory, and what it used at most counts from there.
	debug.FreeOSMemory()
	must(t, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0))
	out, err := h.Run(t.Context(), "rebuild", h.Backing)
	must(t, err)
	t.Log(out)
	offline := h.run("verify", h.Backing, "honest", "--read-data")
	offline.check(t, false)
	h.alone = offline.memory
	must(t, h.Start(t.Context()))
	h.run("verify", h.Mount, "honest", "--read-data").check(t, false)
	if h.started, err = h.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.used, err = volume.PeakRSS(h.started.ServerPID)
	must(t, err)
	return h
}

// in is the same for a subtest.
func (h *hostile) in(t *testing.T) *hostile {
	sub := *h
	sub.t = t
	return &sub
}

// online does with a forged snapshot of the mounted volume whatever can be done.
func (h *hostile) online(tree hostileTree) {
	w := walk(h.t, h.SnapshotDir(tree.name), entryBound)
	h.t.Logf("%d entries, %d deep, %d bytes", w.seen, w.paths, w.read)
	if w.left < 0 && !tree.endless {
		h.t.Errorf("after %d entries there are more", w.seen)
	}
	h.run("verify", h.Mount, tree.name).check(h.t, tree.broken)
	h.commands(h.Mount, tree)
	if !tree.endless {
		// Into the mount: the command itself does it, from what the kernel shows.
		h.restore(h.Mount, tree, filepath.Join(h.Mount, "restored"))
	}
	st, err := h.Status(h.t.Context())
	must(h.t, err)
	if st.ServerPID != h.started.ServerPID || st.HolderPID != h.started.HolderPID {
		h.t.Errorf("the server was %d and is %d, its holder %d and %d", h.started.ServerPID, st.ServerPID, h.started.HolderPID, st.HolderPID)
	}
	peak, err := volume.PeakRSS(h.started.ServerPID)
	must(h.t, err)
	h.t.Logf("the server's memory was %d MiB at most", peak>>20)
	if peak > h.used+memoryBound {
		h.t.Errorf("the server took %d MiB, %d before", peak>>20, h.used>>20)
	}
}

// offline does the same with commands alone.
func (h *hostile) offline(tree hostileTree) {
	h.run("verify", h.Backing, tree.name, "--read-data").check(h.t, tree.broken)
	h.commands(h.Backing, tree)
}

// commands are those that read two trees or write one.
func (h *hostile) commands(at string, tree hostileTree) {
	for _, args := range [][]string{{"honest", tree.name, "--ranges"}, {tree.name, "honest", "--json"}, {tree.name, tree.name}} {
		h.run(append([]string{"diff", at}, args...)...)
	}
	if tree.vast {
		return
	}
	dest := filepath.Join(h.Dir, "dest")
	res := h.restore(at, tree, dest)
	if !tree.legal {
		res.check(h.t, tree.broken)
	}
}

// restore restores a snapshot, and again, with other things in the way. Nothing may be written elsewhere.
func (h *hostile) restore(at string, tree hostileTree, dest string) (res result) {
	before, err := listing(h.outside)
	must(h.t, err)
	res = h.run("restore", at, tree.name, dest)
	h.run("restore", at, tree.name, dest, "--delete")
	h.run("restore", at, tree.name, dest, "x/evil", "dir")
	after, err := listing(h.outside)
	must(h.t, err)
	if len(after) != len(before) || after[h.outside] != before[h.outside] {
		h.t.Errorf("outside of the destination there is %v now, %v before", after, before)
	}
	must(h.t, os.RemoveAll(dest))
	beside, err := os.ReadDir(h.Dir)
	must(h.t, err)
	for _, e := range beside {
		switch e.Name() {
		case "backing", "backing.graphvol", "mnt", "outside":
		default:
			h.t.Errorf("%s is left beside the destination", e.Name())
		}
	}
	return res
}

// honest checks that the rest of the volume is what it was: its first snapshot, and a new one.
func (h *hostile) honest(name string) {
	h.t.Helper()
	h.run("verify", h.Mount, "honest", "--read-data").check(h.t, false)
	h.run("diff", h.Mount, "honest", "honest").check(h.t, false)
	h.run("dirty", h.Mount).check(h.t, false)
	h.run("snapshots", h.Mount).check(h.t, false)
	dest := filepath.Join(h.Dir, "copy")
	restored(h.t, h.Volume, "honest", dest)
	must(h.t, os.RemoveAll(dest))
	rig.WriteFile(h.t, filepath.Join(h.Mount, name), 100_000)
	snapshotIs(h.t, h.Volume, name)
}

// result is how a command ended.
type result struct {
	args        []string
	code        int
	out, errors string
	memory      int64
}

// run runs a command, which must end in time, with success or one clear line.
func (h *hostile) run(args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), commandBound)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Bin, args...)
	stdout, stderr := &bounded{left: outputBound}, &bounded{left: 1 << 20}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	began := time.Now()
	err := cmd.Run()
	r := result{args: args, out: string(stdout.text), errors: string(stderr.text)}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		h.t.Errorf("%q: %v after %v, %d bytes of output", args, err, time.Since(began), outputBound-stdout.left)
		return r
	}
	r.code = cmd.ProcessState.ExitCode()
	r.memory = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	if took := time.Since(began); took > 5*time.Second || r.memory > 100<<20 {
		h.t.Logf("%q: %v, %d MiB, %d bytes of output", args, took, r.memory>>20, outputBound-stdout.left)
	}
	if h.alone > 0 && r.memory > h.alone+memoryBound {
		h.t.Errorf("%q took %d MiB", args, r.memory>>20)
	}
	lines := strings.Split(strings.TrimSuffix(r.errors, "\n"), "\n")
	last := lines[len(lines)-1]
	if r.code > 1 || r.code < 0 || r.code == 1 && !strings.HasPrefix(last, "graphvol: ") || len(last) > 8<<10 || strings.Contains(r.errors, "panic") || strings.Contains(r.errors, "goroutine ") {
		h.t.Errorf("%q: exit code %d, %d bytes of standard error: %.2000s", args, r.code, len(r.errors), r.errors)
	}
	for _, line := range lines[:len(lines)-1] {
		if !strings.HasPrefix(line, "graphvol: ") {
			h.t.Errorf("%q: %.500s", args, line)
		}
	}
	return r
}

// check tells whether a command failed as it should.
func (r result) check(t *testing.T, fails bool) {
	t.Helper()
	if (r.code != 0) != fails {
		t.Errorf("%q: exit code %d: %.3000s%.3000s", r.args, r.code, r.out, r.errors)
	}
}
