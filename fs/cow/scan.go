package cow

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"graphvol/fs/cow/epoch"
	"graphvol/index"
)

// scanner finds what was changed behind the volume's back: after a mount it compares every inode with what was recorded of it,
// by the newest dirty map that has it or else by the newest complete snapshot. Any difference makes the whole inode dirty.
//
// It runs while the volume is in use. An inode's first change during the scan leaves what the inode was before in before, and its
// identity in the dirty map stays void until the scan is over: if that isn't reached, the next scan takes the
// inode for changed.
type scanner struct {
	active atomic.Bool
	done   chan struct{}
	err    error // after done

	mu struct {
		sync.Mutex
		before map[uint64]Attr
		moved  []uint64 // directories that changed place: the walk may miss what is below
	}
}

// before is called with an inode's attributes when it is about to change for the first time.
func (s *scanner) before(ino uint64, a Attr) {
	if !s.active.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.mu.before[ino]; !ok && s.mu.before != nil {
		s.mu.before[ino] = a
	}
}

func (s *scanner) moved(dir uint64) {
	if !s.active.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.moved = append(s.mu.moved, dir)
}

// scan is one run of it.
type scan struct {
	v       *Volume
	r       *running
	carried []*epoch.Epoch // newest first
	rec     recorded
	found   map[uint64]bool // inodes of the carried dirty maps that are there
	doubts  doubts
}

// doubts are what a power cut leaves open: which attributes, directories and blocks may have changed without a trace in the change time.
type doubts struct {
	attrs, dirs bool // of all inodes; of all directories
	dir         map[uint64]bool
	content     []*epoch.Epoch // sealed, and perhaps lost again by the backing's disk
}

// recorded are the inodes of the newest complete snapshot, ascending, with what tells whether they were changed.
type recorded struct {
	inos, sums []uint64
	seen       []bool
}

func (r *recorded) find(ino uint64) (int, bool) { return slices.BinarySearch(r.inos, ino) }

// sumIdent condenses an identity, since millions are kept.
func sumIdent(id index.Ident) uint64 {
	h := fnv.New64a()
	fields := [...]uint64{id.Gen, uint64(id.Size), uint64(id.CtimeSec), uint64(id.CtimeNsec), uint64(id.BtimeSec), uint64(id.BtimeNsec)}
	h.Write(unsafe.Slice((*byte)(unsafe.Pointer(&fields)), int(unsafe.Sizeof(fields))))
	return h.Sum64()
}

// startScan runs the scan in the background.
func (v *Volume) startScan(d doubts) {
	s := &v.scan
	s.mu.before = map[uint64]Attr{}
	s.active.Store(true)
	v.wg.Add(1)
	go func() {
		defer v.wg.Done()
		defer close(s.done)
		err := v.runScan(d)
		s.mu.Lock()
		s.mu.before, s.mu.moved = nil, nil
		s.mu.Unlock()
		if v.ctx.Err() != nil {
			s.err = ErrClosed
			return
		}
		if err != nil {
			v.log.Warn("looking for changes made while unmounted failed; the next snapshot is a full one", "err", err)
			v.setFull()
		}
		s.active.Store(false)
		v.refreshIdents(v.run.Load())
		if err := v.db.PutMeta(metaScanned, []byte(v.token)); err != nil {
			v.log.Warn("a restarted server will look for changes again", "err", err)
		}
	}()
}

// WaitScan waits until changes made while the volume was not mounted are found. It returns at once if there is nothing to look for.
func (v *Volume) WaitScan(ctx context.Context) error {
	select {
	case <-v.scan.done:
		return v.scan.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *Volume) runScan(d doubts) error {
	s := &scan{v: v, r: v.run.Load(), found: map[uint64]bool{}, doubts: d}
	for _, p := range slices.Backward(*v.carried.Load()) {
		s.carried = append(s.carried, p.ep)
	}
	known, err := v.recorded.Each(v.ctx, func(ino uint64, id index.Ident) error {
		s.rec.inos = append(s.rec.inos, ino)
		s.rec.sums = append(s.rec.sums, sumIdent(id))
		return nil
	})
	if err != nil {
		return fmt.Errorf("the newest snapshot's inodes: %w", err)
	}
	if !known {
		v.setFull()
		return nil
	}
	s.rec.seen = make([]bool, len(s.rec.inos))
	root, err := v.tree.Stat(v.tree.Root())
	if err != nil {
		return err
	}
	s.look(root, place{})
	if err := v.walk(v.ctx, root.Ino, func(a Attr, p place) error { s.look(a, p); return nil }); err != nil {
		return err
	}
	if err := s.lookAgain(); err != nil {
		return err
	}
	s.lookForGone()
	return nil
}

// lookAgain walks what was below directories that changed place during the walk, and takes those for seen that were touched.
func (s *scan) lookAgain() error {
	m := &s.v.scan.mu
	for {
		m.Lock()
		dirs := m.moved
		m.moved = nil
		m.Unlock()
		if len(dirs) == 0 {
			break
		}
		for _, dir := range dirs {
			if err := s.v.walk(s.v.ctx, dir, func(a Attr, p place) error { s.look(a, p); return nil }); err != nil {
				return err
			}
		}
	}
	m.Lock()
	touched := make([]Attr, 0, len(m.before))
	for _, a := range m.before {
		touched = append(touched, a)
	}
	m.Unlock()
	for _, a := range touched {
		s.look(a, place{})
	}
	return nil
}

// look compares one inode. a was read before before is looked at: a change in between is found there.
func (s *scan) look(a Attr, p place) {
	now := a
	m := &s.v.scan.mu
	m.Lock()
	was, touched := m.before[a.Ino]
	m.Unlock()
	if touched {
		a = was
	}
	at, inTree := s.rec.find(a.Ino)
	if inTree {
		s.rec.seen[at] = true
	}
	if in := s.r.ep.Find(a.Ino); in != nil && in.HasFresh() {
		return // made since the mount
	}
	if s.doubtful(a, p) {
		s.r.ep.Inode(a.Ino, a.Gen).MarkAttr()
	}
	s.doubtfulContent(a, p)
	for _, ep := range s.carried {
		if in := ep.Find(a.Ino); marked(in) {
			s.found[a.Ino] = true
			s.hint(a, p, in)
			if in.Ident() != identOf(a) {
				s.whole(a, now, p, touched)
			}
			return
		}
	}
	if !inTree {
		s.whole(a, now, p, touched).MarkFresh()
	} else if s.rec.sums[at] != sumIdent(identOf(a)) {
		s.whole(a, now, p, touched)
	}
}

func (s *scan) doubtful(a Attr, p place) bool {
	if isDir(a) && (s.doubts.dirs || s.doubts.dir[a.Ino]) {
		s.r.ep.Inode(a.Ino, a.Gen).MarkAllNames()
		return true
	}
	return s.doubts.attrs || s.doubts.dirs || s.doubts.dir[p.parent]
}

// doubtfulContent marks what the newest snapshot has of an inode and the backing's disk may have lost.
func (s *scan) doubtfulContent(a Attr, p place) {
	for _, ep := range s.doubts.content {
		old := ep.Find(a.Ino)
		if !marked(old) {
			continue
		}
		in := s.r.ep.Inode(a.Ino, a.Gen)
		in.MarkAttr()
		s.hint(a, p, in)
		if old.HasContent() || old.HasFresh() {
			in.MarkContent()
		}
		for first, n := range old.DirtyRuns {
			in.MarkBlocks(first, n)
		}
	}
}

// whole marks everything of an inode.
func (s *scan) whole(a, now Attr, p place, touched bool) *epoch.Inode {
	in := s.r.ep.Inode(a.Ino, a.Gen)
	in.MarkAttr()
	in.MarkContent()
	if isDir(a) {
		in.MarkAllNames()
	}
	s.hint(a, p, in)
	if !touched {
		in.SetIdent(identOf(now))
	}
	return in
}

// hint corrects where a changed inode is.
func (s *scan) hint(a Attr, p place, in *epoch.Inode) {
	parent, name := in.Hint()
	if p.parent != 0 && (parent != p.parent || name != p.name) {
		s.r.ep.Inode(a.Ino, a.Gen).SetHint(p.parent, p.name)
	}
}

// lookForGone marks what the snapshot has, or what was changed since, and the volume has no more. The directories it was in have been
// found changed.
func (s *scan) lookForGone() {
	for i, seen := range s.rec.seen {
		if !seen {
			s.gone(s.rec.inos[i])
		}
	}
	for _, ep := range s.carried {
		for in := range ep.All {
			if marked(in) && !s.found[in.Ino()] {
				s.gone(in.Ino())
			}
		}
	}
}

// gone marks an inode as removed, unless it is known to be, or has become another since the mount: the backing likes to use a number again.
func (s *scan) gone(ino uint64) {
	st := s.r.state(ino)
	st.mu.Lock()
	defer st.mu.Unlock()
	if in := s.r.ep.Find(ino); in != nil && in.HasFresh() || removedIn(s.carried, ino) {
		return
	}
	in := s.r.ep.Inode(ino, 0)
	in.MarkAttr()
	in.MarkRemoved()
}
