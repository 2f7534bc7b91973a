package cow

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"graphvol/fs/cow/backing"
)

// lane is one goroutine's part of the volume: a directory of its own, and its own blocks of a file that all lanes share. Its states
// are kept, so that a snapshot can be compared with those of the time of its barrier.
type lane struct {
	w      *world
	n      int
	rnd    *rand.Rand
	root   uint64
	shared uint64
	lanes  int
	open   map[uint64]bool // files without a name that are still open

	tmp map[uint64]bool // those of them that were never linked: only these can get a name

	mu struct {
		sync.Mutex
		moved  sync.Cond // done changed
		states []*state  // the last one may be under way
		first  int       // step of states[0]
		done   int       // step of the last state that was reached
	}
}

const (
	keepStates  = 20000
	modelBlocks = 96 // files are mostly smaller
	sharedSize  = 64
)

func (l *lane) latest() *state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.states[len(l.mu.states)-1]
}

func (l *lane) reset(s *state) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.moved.L = &l.mu
	l.mu.states, l.mu.first, l.mu.done = []*state{s}, s.step, s.step
}

// doneStep is the last step that had returned; statesSince gives the states that a barrier since then may have caught.
func (l *lane) doneStep() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.done
}

func (l *lane) statesSince(step int) []*state {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.mu.states[len(l.mu.states)-1].step
	for l.mu.done < last { // what is under way may be in the snapshot, under a number not known yet
		l.mu.moved.Wait()
	}
	return slices.Clone(l.mu.states[max(0, step-l.mu.first):])
}

// run does act, after which the lane is in state s.
func (l *lane) run(s *state, act func() error) error {
	l.mu.Lock()
	l.mu.states = append(l.mu.states, s)
	if len(l.mu.states) > keepStates {
		l.mu.first += keepStates / 2
		l.mu.states = slices.Clone(l.mu.states[keepStates/2:])
	}
	l.mu.Unlock()
	err := act()
	l.mu.Lock()
	l.mu.done = l.mu.states[len(l.mu.states)-1].step
	l.mu.moved.Broadcast()
	l.mu.Unlock()
	return err
}

func (l *lane) pick(typ uint32) (*state, *mnode) {
	s := l.latest()
	var c []uint64
	for ino, n := range s.nodes {
		if n.typ == typ || typ == 0 {
			c = append(c, ino)
		}
	}
	if len(c) == 0 {
		return s, nil
	}
	slices.Sort(c)
	return s, s.nodes[c[l.rnd.IntN(len(c))]]
}

// pickName finds a name in a random directory; ok is false if that is empty.
func (l *lane) pickName() (s *state, dir *mnode, name string, ok bool) {
	s, dir = l.pick(syscall.S_IFDIR)
	if len(dir.names) == 0 {
		return s, dir, "", false
	}
	names := slices.Sorted(maps.Keys(dir.names))
	return s, dir, names[l.rnd.IntN(len(names))], true
}

func (l *lane) newName(d *mnode) string {
	for {
		name := fmt.Sprintf("n%d", l.rnd.IntN(40))
		if _, ok := d.names[name]; !ok {
			return name
		}
	}
}

func (l *lane) data(n int) []byte {
	p := make([]byte, n)
	if l.rnd.IntN(8) == 0 {
		return p
	}
	for i := 0; i < n; i += 64 {
		p[i] = byte(l.rnd.Uint32()) | 1
	}
	p[n-1] = byte(l.rnd.Uint32())
	return p
}

// step does one random operation.
func (l *lane) step() error {
	ops := []struct {
		weight int
		name   string
		fn     func() error
	}{
		{30, "write", l.write}, {12, "write shared", l.writeShared}, {8, "create", l.create}, {4, "truncate", l.truncate},
		{5, "fallocate", l.fallocate}, {3, "copy", l.copyRange}, {4, "unlink", l.unlink}, {5, "rename", l.rename},
		{3, "link", l.link}, {3, "attributes", l.attributes}, {3, "xattr", l.xattr}, {1, "tmpfile", l.tmpfile}, {2, "close", l.closeOne},
	}
	total := 0
	for _, o := range ops {
		total += o.weight
	}
	x := l.rnd.IntN(total)
	for _, o := range ops {
		if x -= o.weight; x < 0 {
			if err := o.fn(); err != nil {
				return fmt.Errorf("lane %d: %s: %w", l.n, o.name, err)
			}
			return nil
		}
	}
	return nil
}

func (l *lane) write() error {
	s, f := l.pick(syscall.S_IFREG)
	if f == nil {
		return nil
	}
	off, n := int64(l.rnd.IntN(modelBlocks*blockSize)), 1+l.rnd.IntN(3*blockSize)
	switch l.rnd.IntN(4) {
	case 0:
		off, n = off/blockSize*blockSize, blockSize*(1+l.rnd.IntN(16))
	case 1:
		if l.rnd.IntN(10) == 0 {
			off += 2040 * blockSize // across slots
		}
	}
	p := l.data(n)
	s = s.clone()
	s.edit(f.ino).write(p, off)
	return l.run(s, func() error {
		k, err := l.w.v.Write(f.ino, p, off, WriteFlags{})
		if err == nil && k != n {
			err = fmt.Errorf("wrote %d of %d", k, n)
		}
		return err
	})
}

func (l *lane) writeShared() error {
	b := uint64(l.rnd.IntN(sharedSize/l.lanes)*l.lanes + l.n)
	p := l.data(blockSize)
	s := l.latest().clone()
	s.shared = maps.Clone(s.shared)
	s.shared[b] = p
	return l.run(s, func() error {
		_, err := l.w.v.Write(l.shared, p, int64(b)*blockSize, WriteFlags{})
		return err
	})
}

// create makes an inode of a random type. Its number is known only afterwards, so the state follows the act; that is right,
// since a state begun before it differs from this one by a name whose inode the model could not tell.
func (l *lane) create() error {
	s, d := l.pick(syscall.S_IFDIR)
	if len(d.names) > 30 || len(s.nodes) > 60 {
		return nil
	}
	name := l.newName(d)
	n := &mnode{perm: uint32([]int{0o600, 0o644, 0o755}[l.rnd.IntN(3)]), nlink: 1, xattrs: map[string]string{}}
	var act func() (Attr, error)
	v, c := l.w.v, Caller{}
	switch x := l.rnd.IntN(10); {
	case x < 6:
		n.typ, n.blocks = syscall.S_IFREG, map[uint64][]byte{}
		act = func() (Attr, error) { return v.Create(c, d.ino, name, syscall.O_RDWR|syscall.O_EXCL, n.perm) }
	case x < 8:
		n.typ, n.names = syscall.S_IFDIR, map[string]uint64{}
		act = func() (Attr, error) { return v.Mkdir(c, d.ino, name, n.perm) }
	case x < 9:
		n.typ, n.target, n.perm = syscall.S_IFLNK, fmt.Sprintf("to/%d", l.rnd.Uint32()), 0o777
		act = func() (Attr, error) { return v.Symlink(c, d.ino, name, n.target) }
	default:
		n.typ = syscall.S_IFIFO
		act = func() (Attr, error) { return v.Mknod(c, d.ino, name, n.typ|n.perm, 0) }
	}
	return l.born(s, d.ino, name, n, act)
}

// born is for inodes that get a number by act: the state that is under way knows only that there may be such a name.
func (l *lane) born(s *state, dir uint64, name string, n *mnode, act func() (Attr, error)) error {
	s = s.clone()
	return l.run(s, func() error {
		a, err := act()
		if err != nil {
			return err
		}
		n.ino = a.Ino
		next := *s
		next.nodes = maps.Clone(s.nodes)
		next.nodes[n.ino] = n
		if dir != 0 {
			next.edit(dir).names[name] = n.ino
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		next.step++
		l.mu.states = append(l.mu.states, &next)
		return nil
	})
}

func (l *lane) truncate() error {
	s, f := l.pick(syscall.S_IFREG)
	if f == nil {
		return nil
	}
	size := int64(l.rnd.IntN(modelBlocks * blockSize))
	switch l.rnd.IntN(4) {
	case 0:
		size = 0
	case 1:
		size = size / blockSize * blockSize
	}
	s = s.clone()
	s.edit(f.ino).truncate(size)
	return l.run(s, func() error {
		_, err := l.w.v.Setattr(Caller{}, f.ino, SetAttr{Valid: backing.SetSize, Size: size})
		return err
	})
}

func (l *lane) fallocate() error {
	s, f := l.pick(syscall.S_IFREG)
	if f == nil {
		return nil
	}
	off, n := int64(l.rnd.IntN(modelBlocks*blockSize)), int64(1+l.rnd.IntN(16*blockSize))
	s = s.clone()
	m := s.edit(f.ino)
	m.mtime = 0
	var mode uint32
	switch l.rnd.IntN(6) {
	case 0:
		m.size = max(m.size, off+n)
	case 1:
		mode = unix.FALLOC_FL_KEEP_SIZE
	case 2:
		mode = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE
		m.zero(off, n)
	case 3:
		mode = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_ZERO_RANGE
		m.zero(off, n)
	case 4:
		off, n = off/blockSize*blockSize, (n+blockSize-1)/blockSize*blockSize
		if off+n >= m.size {
			return nil
		}
		mode = unix.FALLOC_FL_COLLAPSE_RANGE
		m.shift(uint64(off/blockSize), -n/blockSize)
	case 5:
		off, n = off/blockSize*blockSize, (n+blockSize-1)/blockSize*blockSize
		if off >= m.size || m.size > modelBlocks*2*blockSize {
			return nil
		}
		mode = unix.FALLOC_FL_INSERT_RANGE
		m.shift(uint64(off/blockSize), n/blockSize)
	}
	return l.run(s, func() error { return l.w.v.Fallocate(Caller{}, f.ino, mode, off, n) })
}

func (l *lane) copyRange() error {
	s, f := l.pick(syscall.S_IFREG)
	if f == nil {
		return nil
	}
	_, g := l.pick(syscall.S_IFREG)
	soff, doff, n := int64(l.rnd.IntN(modelBlocks*blockSize)), int64(l.rnd.IntN(modelBlocks*blockSize)), 1+l.rnd.IntN(8*blockSize)
	p := f.read(soff, n)
	if f == g || len(p) == 0 || soff >= f.size {
		return nil
	}
	s = s.clone()
	s.edit(g.ino).write(p, doff)
	return l.run(s, func() error {
		k, err := l.w.v.CopyRange(f.ino, soff, g.ino, doff, n)
		if err == nil && k != len(p) {
			err = fmt.Errorf("copied %d of %d", k, len(p))
		}
		return err
	})
}

func (l *lane) unlink() error {
	s, d, name, ok := l.pickName()
	if !ok {
		return nil
	}
	c := s.nodes[d.names[name]]
	if c.typ == syscall.S_IFDIR && len(c.names) > 0 {
		return nil
	}
	s = s.clone()
	s.unlink(d.ino, name)
	last := s.nodes[c.ino] == nil || s.nodes[c.ino].nlink == 0
	keep := last && c.typ == syscall.S_IFREG && l.rnd.IntN(3) == 0 // stays open
	if last && !keep {
		delete(s.nodes, c.ino)
	}
	err := l.run(s, func() error {
		if c.typ == syscall.S_IFDIR {
			_, err := l.w.v.Rmdir(Caller{}, d.ino, name)
			return err
		}
		_, err := l.w.v.Unlink(Caller{}, d.ino, name)
		return err
	})
	if keep {
		l.open[c.ino] = true
	} else if last {
		l.w.v.Forget(c.ino, 1)
	}
	return err
}

// closeOne lets go of a file without a name.
func (l *lane) closeOne() error {
	for _, ino := range slices.Sorted(maps.Keys(l.open)) {
		if l.rnd.IntN(2) == 0 {
			s := l.latest().clone()
			delete(s.nodes, ino)
			delete(l.open, ino)
			delete(l.tmp, ino)
			return l.run(s, func() error { l.w.v.Forget(ino, 1); return nil })
		}
	}
	return nil
}

func (l *lane) below(s *state, dir, ino uint64) bool {
	if dir == ino {
		return true
	}
	for _, c := range s.nodes[dir].names {
		if n := s.nodes[c]; n.typ == syscall.S_IFDIR && l.below(s, c, ino) {
			return true
		}
	}
	return false
}

func (l *lane) rename() error {
	s, d, name, ok := l.pickName()
	if !ok {
		return nil
	}
	_, to, newname, ok := l.pickName()
	if !ok || l.rnd.IntN(2) == 0 {
		newname = l.newName(to)
	}
	src, dst := s.nodes[d.names[name]], s.nodes[to.names[newname]]
	if src == dst || src.typ == syscall.S_IFDIR && l.below(s, src.ino, to.ino) {
		return nil
	}
	var flags uint32
	s = s.clone()
	switch {
	case dst == nil:
		flags = uint32(l.rnd.IntN(2)) * backing.RenameNoReplace
	case l.rnd.IntN(2) == 0:
		if dst.typ == syscall.S_IFDIR && l.below(s, dst.ino, d.ino) {
			return nil
		}
		flags = backing.RenameExchange
		s.edit(d.ino).names[name] = dst.ino
		s.edit(to.ino).names[newname] = src.ino
		return l.run(s, func() error {
			_, err := l.w.v.Rename(Caller{}, d.ino, name, to.ino, newname, flags)
			return err
		})
	case (src.typ == syscall.S_IFDIR) != (dst.typ == syscall.S_IFDIR), len(dst.names) > 0:
		return nil
	default:
		s.unlink(to.ino, newname)
		if n := s.nodes[dst.ino]; n != nil && n.nlink == 0 {
			delete(s.nodes, dst.ino)
		}
	}
	delete(s.edit(d.ino).names, name)
	s.edit(to.ino).names[newname] = src.ino
	err := l.run(s, func() error {
		_, err := l.w.v.Rename(Caller{}, d.ino, name, to.ino, newname, flags)
		return err
	})
	if dst != nil && s.nodes[dst.ino] == nil {
		l.w.v.Forget(dst.ino, 1)
	}
	return err
}

func (l *lane) link() error {
	s, f := l.pick(syscall.S_IFREG)
	if f == nil || f.nlink == 0 && !l.tmp[f.ino] {
		return nil
	}
	_, d := l.pick(syscall.S_IFDIR)
	if len(d.names) > 30 {
		return nil
	}
	name := l.newName(d)
	s = s.clone()
	s.link(d.ino, name, f.ino)
	delete(l.open, f.ino)
	delete(l.tmp, f.ino)
	return l.run(s, func() error {
		a, err := l.w.v.Link(Caller{}, f.ino, d.ino, name)
		if err == nil {
			l.w.v.Forget(a.Ino, 1)
		}
		return err
	})
}

func (l *lane) attributes() error {
	s, f := l.pick(0)
	if f.typ == syscall.S_IFLNK {
		return nil
	}
	s = s.clone()
	m := s.edit(f.ino)
	in := SetAttr{}
	if l.rnd.IntN(2) == 0 {
		m.perm = uint32([]int{0o600, 0o644, 0o755, 0o4755, 0o700}[l.rnd.IntN(5)])
		in.Valid, in.Mode = backing.SetMode, m.perm
	} else {
		m.mtime = 1 + l.rnd.Int64N(1<<31)
		in.Valid, in.Mtime.Sec = backing.SetMtime, m.mtime
		if f.typ == syscall.S_IFDIR {
			m.mtime = 0 // changed by the next name
		}
	}
	return l.run(s, func() error {
		_, err := l.w.v.Setattr(Caller{}, f.ino, in)
		return err
	})
}

func (l *lane) xattr() error {
	s, f := l.pick(0)
	if f.typ != syscall.S_IFREG && f.typ != syscall.S_IFDIR {
		return nil
	}
	s = s.clone()
	m := s.edit(f.ino)
	for name := range f.xattrs {
		if l.rnd.IntN(2) == 0 {
			delete(m.xattrs, name)
			return l.run(s, func() error { return l.w.v.Removexattr(Caller{}, f.ino, name) })
		}
	}
	name, val := fmt.Sprintf("user.x%d", l.rnd.IntN(3)), fmt.Sprint(l.rnd.Uint32())
	m.xattrs[name] = val
	return l.run(s, func() error { return l.w.v.Setxattr(Caller{}, f.ino, name, []byte(val), 0) })
}

func (l *lane) tmpfile() error {
	s, d := l.pick(syscall.S_IFDIR)
	if len(s.nodes) > 60 {
		return nil
	}
	n := &mnode{typ: syscall.S_IFREG, perm: 0o600, xattrs: map[string]string{}, blocks: map[uint64][]byte{}}
	err := l.born(s, 0, "", n, func() (Attr, error) { return l.w.v.Tmpfile(Caller{}, d.ino, syscall.O_RDWR, 0o600) })
	if err == nil {
		l.open[n.ino], l.tmp[n.ino] = true, true
	}
	return err
}
