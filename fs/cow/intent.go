package cow

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"graphvol/index"
)

// Intents are announced before the gate is entered, so that a barrier never waits for the disk. An intent for an epoch that
// has ended meanwhile does no harm, and the request announces again for the new one.

// Single intents of one kind in one epoch, after which one stands for all, so that chmod -R doesn't pay a disk flush a file.
const maxSingleIntents = 64

// maxRegions of one request: above, the whole file is announced.
const maxRegions = 16

// What has an intent that is no region of a file, in inodeState.announced beside the regions' numbers.
const (
	regionAttr  = math.MaxUint32 - iota // the inode's attributes
	regionNames                         // the directory's names
	regionAll                           // all regions of the file
)

// want is what a request is going to change. last < first: no blocks.
type want struct {
	ino         uint64
	kind        wantKind
	first, last uint32 // regions, with wantBlocks
}

type wantKind uint8

const (
	wantAttr wantKind = iota
	wantNames
	wantBlocks
)

func wantRange(ino uint64, off, n int64) want {
	if n <= 0 {
		return want{ino: ino}
	}
	first, last := off>>regionShift, (off+n-1)>>regionShift
	if last < 0 || last >= regionAll { // an intent has no room for such a number, at 256 PiB
		return want{ino, wantBlocks, 0, maxRegions}
	}
	return want{ino, wantBlocks, uint32(first), uint32(last)}
}

type intentCounts struct {
	attrs, dirs       atomic.Int32
	allAttrs, allDirs atomic.Bool

	breaking sync.Mutex
	broken   atomic.Bool // intents can't be recorded in this epoch
	unnoted  atomic.Bool // and the marker can't say so: the state's disk is dead. broken is set after it
}

// begin enters the gate once everything in wants is announced for the epoch that is then running.
func (v *Volume) begin(wants ...want) (*running, error) {
	for {
		r, err := v.enter()
		if err != nil {
			return nil, err
		}
		if r.announced(wants) {
			return r, nil
		}
		v.gate.leave()
		v.announce(r, wants)
	}
}

// announced tells whether all intents for wants are durable, or not needed.
func (r *running) announced(wants []want) bool {
	broken, unnoted := r.intents.broken.Load(), r.intents.unnoted.Load()
	if broken && !unnoted {
		return true
	}
	for _, w := range wants {
		if broken && w.kind != wantBlocks {
			continue // what changes reaches the disk with the change time
		}
		st := r.state(w.ino)
		// A new inode needs none: its directory has one, and no tree knows it.
		if st.fresh.Load() || r.intents.covers(w.kind) {
			continue
		}
		st.mu.Lock()
		ok := st.announcedLocked(w)
		st.mu.Unlock()
		if !ok {
			return false
		}
	}
	return true
}

func (c *intentCounts) covers(k wantKind) bool {
	return k == wantAttr && c.allAttrs.Load() || k == wantNames && c.allDirs.Load()
}

func (st *inodeState) announcedLocked(w want) bool {
	has := func(region uint32) bool { _, ok := st.mu.announced[region]; return ok }
	switch w.kind {
	case wantAttr:
		return len(st.mu.announced) > 0
	case wantNames:
		return has(regionNames)
	}
	if has(regionAll) {
		return true
	}
	for r := w.first; r <= w.last; r++ {
		if !has(r) {
			return false
		}
	}
	return true
}

// announce makes the intents for wants durable. If that fails, the running epoch goes on without: after a power cut
// everything then counts as dirty.
func (v *Volume) announce(r *running, wants []want) {
	if r.intents.unnoted.Load() {
		v.stamp(r, wants)
		return
	}
	var in []index.Intent
	for _, w := range wants {
		in = append(in, r.intentsFor(w)...)
	}
	if err := v.db.AddIntents(context.Background(), r.number, in...); err != nil {
		v.intentsBroken(r, err)
		return
	}
	for _, w := range wants {
		r.settle(w, in)
	}
}

// stamp announces by what the backing itself keeps, when the state's disk has died: a change time that differs from the recorded
// one makes the whole file dirty. It must be durable before the blocks are: of a block that is overwritten in place the disk
// may get the content alone.
func (v *Volume) stamp(r *running, wants []want) {
	for _, w := range wants {
		st := r.state(w.ino)
		if w.kind != wantBlocks || st.fresh.Load() {
			continue
		}
		if err := v.tree.Stamp(w.ino); err != nil {
			v.log.Warn("a change can't be announced at all", "ino", w.ino, "err", err)
		}
		st.mu.Lock()
		if st.mu.announced == nil {
			st.mu.announced = map[uint32]struct{}{}
		}
		st.mu.announced[regionAll] = struct{}{}
		st.mu.Unlock()
	}
}

func (r *running) intentsFor(w want) (in []index.Intent) {
	one := func(k index.IntentKind, region uint32) {
		in = append(in, index.Intent{Kind: k, Ino: w.ino, Region: region})
	}
	switch {
	case w.kind == wantAttr && r.intents.attrs.Add(1) > maxSingleIntents:
		in = append(in, index.Intent{Kind: index.IntentAllAttrs})
	case w.kind == wantAttr:
		one(index.IntentAttr, 0)
	case w.kind == wantNames && r.intents.dirs.Add(1) > maxSingleIntents:
		in = append(in, index.Intent{Kind: index.IntentAllDirs})
	case w.kind == wantNames:
		one(index.IntentDir, 0)
	case w.last-w.first >= maxRegions:
		one(index.IntentFile, 0)
	default:
		for i := w.first; i <= w.last; i++ {
			one(index.IntentRegion, i)
		}
	}
	return in
}

// settle remembers what is durable now.
func (r *running) settle(w want, in []index.Intent) {
	has := func(k index.IntentKind) bool {
		return slices.ContainsFunc(in, func(i index.Intent) bool { return i.Kind == k })
	}
	st := r.state(w.ino)
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.mu.announced == nil {
		st.mu.announced = map[uint32]struct{}{}
	}
	switch w.kind {
	case wantAttr:
		if has(index.IntentAllAttrs) {
			r.intents.allAttrs.Store(true)
		}
		st.mu.announced[regionAttr] = struct{}{}
	case wantNames:
		if has(index.IntentAllDirs) {
			r.intents.allDirs.Store(true)
		}
		st.mu.announced[regionNames] = struct{}{}
	default:
		if w.last-w.first >= maxRegions {
			st.mu.announced[regionAll] = struct{}{}
			return
		}
		for i := w.first; i <= w.last; i++ {
			st.mu.announced[i] = struct{}{}
		}
	}
}
