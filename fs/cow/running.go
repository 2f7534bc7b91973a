package cow

import (
	"sync"
	"sync/atomic"

	"graphvol/fs/cow/epoch"
	"graphvol/index"
)

const (
	blockShift  = 12
	blockSize   = 1 << blockShift
	regionShift = 26 // of bytes: an intent stands for 64 MiB of a file
)

// span gives the blocks that n bytes at off touch.
func span(off, n int64) (first, blocks uint64) {
	if n <= 0 {
		return uint64(off) >> blockShift, 0
	}
	first = uint64(off) >> blockShift
	return first, uint64(off+n-1)>>blockShift - first + 1
}

// blockEnd is the offset at which a block of a file of that size ends. The file may end at the last offset there is.
func blockEnd(b uint64, size int64) int64 { return int64(min((b+1)<<blockShift, uint64(size))) }

const stateShards = 64

// running is the running epoch and what is known of inodes in it. A barrier replaces it whole, while nobody is inside the
// gate, so that nothing in it needs to be told of epochs.
type running struct {
	ep      *epoch.Epoch
	number  uint64
	resumed bool // begun by a server that was killed
	shard   [stateShards]struct {
		sync.RWMutex
		m map[uint64]*inodeState
	}

	intents intentCounts
	lost    atomic.Bool // checkMarks has seen that marks may be

	stale struct {
		sync.Mutex
		list []*inodeState // changed since their identity was recorded
	}
}

// inodeState is one inode in the running epoch.
type inodeState struct {
	ino uint64
	// in: the inode's marks; nil before its first change in this epoch. Once it is set, the
	// attribute mark is set and the attributes' preimage is saved where one is needed.
	in    atomic.Pointer[epoch.Inode]
	fresh atomic.Bool // made in this epoch: no older snapshot needs anything of it
	stale atomic.Bool // is in running.stale

	// names serialises what changes a directory's names, or the number of a file's links.
	names sync.Mutex

	mu struct { // marks; held while a preimage is saved, never while the backing is changed
		sync.Mutex
		announced map[uint32]struct{} // regions with an intent; see intent.go
	}
}

func newRunning(ep *epoch.Epoch) *running {
	r := &running{ep: ep, number: ep.Number()}
	for i := range r.shard {
		r.shard[i].m = map[uint64]*inodeState{}
	}
	return r
}

// label is the number of the epoch that ended last: that of preimages saved now.
func (r *running) label() uint64 { return r.number - 1 }

// state returns the state of ino, made if there is none.
func (r *running) state(ino uint64) *inodeState {
	s := &r.shard[ino%stateShards]
	s.RLock()
	st := s.m[ino]
	s.RUnlock()
	if st != nil {
		return st
	}
	s.Lock()
	defer s.Unlock()
	if st = s.m[ino]; st == nil {
		st = &inodeState{ino: ino}
		if r.resumed {
			st.resume(r.ep.Find(ino))
		}
		s.m[ino] = st
	}
	return st
}

// resume tells what the server before has marked. That an inode is in no snapshot must not be forgotten: who changes it would wait for an intent.
func (st *inodeState) resume(in *epoch.Inode) {
	if in == nil || !in.HasFresh() {
		return
	}
	in.MarkAttr() // it may have been killed in between
	st.fresh.Store(true)
	st.in.Store(in)
}

// changed says that the backing has just changed these inodes.
func (r *running) changed(states ...*inodeState) {
	for _, st := range states {
		if st == nil || st.stale.Load() || st.stale.Swap(true) {
			continue
		}
		r.stale.Lock()
		r.stale.list = append(r.stale.list, st)
		r.stale.Unlock()
	}
}

// identOf is what tells whether an inode was changed.
func identOf(a Attr) index.Ident {
	return index.Ident{
		Valid: true, Gen: a.Gen, Size: a.Size,
		CtimeSec: a.Ctime.Sec, CtimeNsec: a.Ctime.Nsec,
		BtimeSec: a.Btime.Sec, BtimeNsec: a.Btime.Nsec,
	}
}

// refreshIdents records anew what inodes look like that were changed since the last time.
func (v *Volume) refreshIdents(r *running) {
	r.stale.Lock()
	list := r.stale.list
	r.stale.list = nil
	r.stale.Unlock()
	for _, st := range list {
		st.stale.Store(false)
		in := st.in.Load()
		if in == nil {
			continue
		}
		if a, err := v.tree.Stat(st.ino); err == nil && (a.Gen == in.Gen() || a.Gen == 0) {
			in.SetIdent(identOf(a))
		}
	}
}
