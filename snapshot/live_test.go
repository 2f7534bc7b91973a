package snapshot

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"graphvol/snapshot/tree"
)

// fakeLive is the live volume of a fakeVolume, which knows what changed since one snapshot.
type fakeLive struct {
	vol      *fakeVolume
	snapshot string
	lies     bool // gives wrong bytes, as a file that was changed behind the volume's back would
	served   atomic.Int64
}

var _ Live = (*fakeLive)(nil)

func (l *fakeLive) ReadClean(_ context.Context, snapshotID string, ino, gen uint64, p []byte, off int64) (bool, error) {
	in := l.vol.inos[ino]
	if snapshotID != l.snapshot || in == nil || in.Gen != gen || off+int64(len(p)) > in.Size {
		return false, nil
	}
	d := l.vol.dirty[ino]
	for n := 0; n < len(p); {
		b, at := uint64(off+int64(n))/BlockSize, (off+int64(n))%BlockSize
		if d != nil && (d.content || d.fresh || d.blocks[b]) {
			return false, nil
		}
		src := in.blocks[b]
		if src == nil {
			src = make([]byte, BlockSize)
		}
		n += copy(p[n:], src[at:])
	}
	if l.lies && len(p) > 0 {
		p[len(p)/2] ^= 0xff
	}
	l.served.Add(1)
	return true, nil
}

func TestReadsFromTheLiveVolume(t *testing.T) {
	for _, lies := range []bool{false, true} {
		r := newRepo(t)
		v := newFakeVolume(rand.New(rand.NewPCG(rand.Uint64(), 8)))
		for range 60 {
			v.step()
		}
		big := v.add(tree.ModeRegular | 0o600)
		v.write(big, 0, 900, false)
		live := &fakeLive{vol: v, lies: lies}
		r.SetLive(live)
		var models []*fakeSource
		for i := range 5 {
			src := v.barrier(i == 0)
			models = append(models, src)
			live.snapshot = seal(t, r, src).ID
			list, err := r.Snapshots()
			if err != nil {
				t.Fatal(err)
			}
			for k := range models { // twice: what was verified is read in another way
				checkSnapshot(t, r, list[k], models[k])
				checkSnapshot(t, r, list[k], models[k])
			}
			r.ahead.running.Wait() // the volume of this test isn't made for changes during reads
			for range 20 {
				v.step()
			}
			v.write(big, v.r.Uint64N(900), 2, false)
			for k := range models {
				checkSnapshot(t, r, list[k], models[k])
			}
			r.ahead.running.Wait()
		}
		if live.served.Load() == 0 {
			t.Error("nothing was read from the live volume")
		}
	}
}
