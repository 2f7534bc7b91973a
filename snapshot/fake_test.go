package snapshot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"graphvol/snapshot/tree"
)

// fakeVolume is a volume in memory, with the marks of the running epoch.
type fakeVolume struct {
	r     *rand.Rand
	inos  map[uint64]*fakeInode
	dirty map[uint64]*fakeDirty
	epoch uint64
	clock int64
	gen   uint64
	free  []uint64 // inode numbers to use again
}

type fakeInode struct {
	tree.Inode
	blocks map[uint64][]byte // never written to once they are here
	names  map[string]uint64
}

type fakeDirty struct {
	content, allNames, fresh bool
	names                    map[string]bool
	blocks                   map[uint64]bool
}

const fakeRoot = 131

func newFakeVolume(r *rand.Rand) *fakeVolume {
	v := &fakeVolume{r: r, inos: map[uint64]*fakeInode{}, dirty: map[uint64]*fakeDirty{}, epoch: 1}
	v.make(fakeRoot, tree.ModeDir|0o755)
	return v
}

func (v *fakeVolume) now() tree.Time {
	v.clock++
	return tree.Time{Sec: v.clock - 5, Nsec: uint32(v.r.IntN(1e9))}
}

func (v *fakeVolume) make(ino uint64, mode uint32) *fakeInode {
	v.gen++
	in := &fakeInode{Inode: tree.Inode{Ino: ino, Gen: v.gen, Mode: mode, Nlink: 1, UID: v.r.Uint32N(3), Mtime: v.now(), Btime: v.now()}}
	if in.IsDir() {
		in.names, in.Nlink = map[string]uint64{}, 2
	} else if in.IsRegular() {
		in.blocks = map[uint64][]byte{}
	}
	v.inos[ino] = in
	d := v.mark(ino)
	d.fresh = true
	return in
}

// mark notes a change of an inode's attributes.
func (v *fakeVolume) mark(ino uint64) *fakeDirty {
	d := v.dirty[ino]
	if d == nil {
		d = &fakeDirty{names: map[string]bool{}, blocks: map[uint64]bool{}}
		v.dirty[ino] = d
	}
	if in := v.inos[ino]; in != nil {
		in.Ctime = v.now()
	}
	return d
}

func (v *fakeVolume) newIno() uint64 {
	if len(v.free) > 0 && v.r.IntN(2) == 0 {
		ino := v.free[0]
		v.free = v.free[1:]
		return ino
	}
	return 1000 + v.gen*uint64(1+v.r.IntN(3))*1000 + v.gen
}

func (v *fakeVolume) pick(want func(*fakeInode) bool) *fakeInode {
	inos := slices.Sorted(maps.Keys(v.inos))
	for range 20 {
		if in := v.inos[inos[v.r.IntN(len(inos))]]; want(in) {
			return in
		}
	}
	return nil
}

func (v *fakeVolume) dir() *fakeInode {
	if d := v.pick(func(in *fakeInode) bool { return in.IsDir() }); d != nil {
		return d
	}
	return v.inos[fakeRoot]
}

func (v *fakeVolume) regular() *fakeInode {
	return v.pick(func(in *fakeInode) bool { return in.IsRegular() })
}

func (v *fakeVolume) setName(d *fakeInode, name string, ino uint64) {
	d.names[name] = ino
	v.mark(d.Ino).names[name] = true
}

func (v *fakeVolume) add(mode uint32) *fakeInode {
	d := v.dir()
	name := fmt.Sprintf("n%d-%s", v.gen, strings.Repeat("x", v.r.IntN(40)))
	in := v.make(v.newIno(), mode)
	v.setName(d, name, in.Ino)
	return in
}

// shuffled gives the names in a directory in an order that depends on the seed alone.
func (v *fakeVolume) shuffled(d *fakeInode) []string {
	names := slices.Sorted(maps.Keys(d.names))
	v.r.Shuffle(len(names), func(i, k int) { names[i], names[k] = names[k], names[i] })
	return names
}

func (v *fakeVolume) unlink() {
	d := v.dir()
	for _, name := range v.shuffled(d) {
		ino := d.names[name]
		in := v.inos[ino]
		if in.IsDir() && len(in.names) > 0 {
			continue
		}
		delete(d.names, name)
		v.mark(d.Ino).names[name] = true
		v.mark(ino)
		if in.Nlink--; in.IsDir() || in.Nlink == 0 {
			delete(v.inos, ino)
			v.free = append(v.free, ino)
		}
		return
	}
}

func (v *fakeVolume) rename() {
	from, to := v.dir(), v.dir()
	for _, name := range v.shuffled(from) {
		ino := from.names[name]
		if v.inos[ino].IsDir() {
			continue // might make a loop
		}
		delete(from.names, name)
		v.mark(from.Ino).names[name] = true
		v.setName(to, name+"r", ino)
		v.mark(ino)
		return
	}
}

func (v *fakeVolume) link() {
	if in := v.regular(); in != nil {
		in.Nlink++
		v.mark(in.Ino)
		v.setName(v.dir(), fmt.Sprintf("l%d", v.clock), in.Ino)
	}
}

func randomBlock(r *rand.Rand) []byte {
	p := make([]byte, BlockSize)
	if r.IntN(8) == 0 {
		return p
	}
	for i := range 64 {
		p[r.IntN(len(p))] = byte(i)
	}
	return p
}

// write writes n blocks; with same it writes what is there.
func (v *fakeVolume) write(in *fakeInode, first, n uint64, same bool) {
	d := v.mark(in.Ino)
	in.Mtime = v.now()
	for b := first; b < first+n; b++ {
		d.blocks[b] = true
		if same && in.blocks[b] != nil {
			continue
		}
		in.blocks[b] = randomBlock(v.r)
	}
	end := int64(first+n)*BlockSize - int64(v.r.IntN(BlockSize))
	in.Size = max(in.Size, end)
	v.zeroTail(in)
}

// zeroTail keeps what is behind the end of a file zero.
func (v *fakeVolume) zeroTail(in *fakeInode) {
	last := in.Size / BlockSize
	if p := in.blocks[uint64(last)]; p != nil && in.Size%BlockSize != 0 {
		p = bytes.Clone(p)
		clear(p[in.Size%BlockSize:])
		in.blocks[uint64(last)] = p
	}
}

func (v *fakeVolume) truncate(in *fakeInode, size int64) {
	d := v.mark(in.Ino)
	old := in.Size
	in.Size, in.Mtime = size, v.now()
	for b := range in.blocks {
		if b >= blocksOf(size) {
			delete(in.blocks, b)
		}
	}
	for b := uint64(size) / BlockSize; b < blocksOf(old); b++ {
		d.blocks[b] = true
	}
	v.zeroTail(in)
}

func (v *fakeVolume) punch(in *fakeInode, first, n uint64) {
	d := v.mark(in.Ino)
	for b := first; b < first+n; b++ {
		d.blocks[b] = true
		delete(in.blocks, b)
	}
}

func (v *fakeVolume) setXattrs(in *fakeInode) {
	v.mark(in.Ino)
	in.Xattrs = nil
	for i := range v.r.IntN(4) {
		val := make([]byte, v.r.IntN(20))
		if v.r.IntN(10) == 0 {
			val = make([]byte, 60_000)
			val[v.r.IntN(len(val))] = 1
		}
		in.Xattrs = append(in.Xattrs, tree.Xattr{Name: fmt.Sprintf("user.%d", i), Value: val})
	}
}

// step makes one random change.
func (v *fakeVolume) step() {
	switch k := v.r.IntN(20); {
	case k < 3:
		v.write(v.add(tree.ModeRegular|0o644), 0, 1+v.r.Uint64N(40), false)
	case k < 4:
		v.add(tree.ModeDir | 0o700)
	case k < 5:
		v.add(tree.ModeSymlink | 0o777).Target = fmt.Sprintf("../target%d", v.clock)
	case k < 6:
		v.add(tree.ModeChar | 0o600).Rdev = uint64(v.r.Uint32())
	case k < 7:
		v.unlink()
	case k < 8:
		v.rename()
	case k < 9:
		v.link()
	case k < 10:
		in := v.dir()
		in.Mode ^= 0o020
		v.mark(in.Ino)
	default:
		if in := v.regular(); in != nil {
			v.changeFile(in)
		}
	}
}

func (v *fakeVolume) changeFile(in *fakeInode) {
	blocks := blocksOf(in.Size) + 3
	switch v.r.IntN(12) {
	case 0:
		v.truncate(in, v.r.Int64N(in.Size+1))
	case 1:
		v.truncate(in, in.Size+v.r.Int64N(1<<20))
	case 2:
		v.punch(in, v.r.Uint64N(blocks), 1+v.r.Uint64N(50))
	case 3:
		v.setXattrs(in)
	case 4: // far behind the end
		v.write(in, blocks+v.r.Uint64N(5000), 1, false)
	case 5:
		v.write(in, v.r.Uint64N(blocks), 1+v.r.Uint64N(100), false)
	case 6:
		v.write(in, v.r.Uint64N(blocks), 1+v.r.Uint64N(40), true)
	case 7: // marked though nothing changed
		d := v.mark(in.Ino)
		for range 5 {
			d.blocks[v.r.Uint64N(blocks+40)] = true
		}
	case 8:
		v.mark(in.Ino).content = true
	default:
		for range 1 + v.r.IntN(6) {
			v.write(in, v.r.Uint64N(blocks), 1+v.r.Uint64N(3), false)
		}
	}
}

// barrier ends the epoch.
func (v *fakeVolume) barrier(full bool) *fakeSource {
	s := &fakeSource{vol: v, epoch: v.epoch, full: full, inos: map[uint64]*fakeInode{}, dirty: v.dirty, done: map[uint64]bool{}}
	for ino, in := range v.inos {
		c := *in
		c.Xattrs = slices.Clone(in.Xattrs)
		c.blocks, c.names = maps.Clone(in.blocks), maps.Clone(in.names)
		s.inos[ino] = &c
	}
	v.epoch++
	v.dirty = map[uint64]*fakeDirty{}
	return s
}

// fakeSource is an ended epoch of a fakeVolume.
type fakeSource struct {
	vol   *fakeVolume
	epoch uint64
	full  bool
	inos  map[uint64]*fakeInode
	dirty map[uint64]*fakeDirty
	fail  func(op string) error // asked before every operation if set

	mu       sync.Mutex
	done     map[uint64]bool
	read     int64
	releases []bool
}

var _ Source = (*fakeSource)(nil)

func (s *fakeSource) check(op string, ino uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done[ino] {
		return fmt.Errorf("%s of inode %d after Done", op, ino)
	}
	if s.fail != nil {
		return s.fail(op)
	}
	return nil
}

func (s *fakeSource) Epoch() uint64 { return s.epoch }
func (s *fakeSource) Root() uint64  { return fakeRoot }
func (s *fakeSource) Full() bool    { return s.full }

func (s *fakeSource) Dirty(yield func(DirtyInode) bool) {
	for _, ino := range slices.Sorted(maps.Keys(s.dirty)) {
		d := s.dirty[ino]
		di := DirtyInode{Ino: ino, Content: d.content, AllNames: d.allNames, Fresh: d.fresh, Names: slices.Sorted(maps.Keys(d.names))}
		if len(d.blocks) > 0 {
			blocks := slices.Sorted(maps.Keys(d.blocks))
			di.Runs = func(yield func(first, n uint64) bool) {
				for i := 0; i < len(blocks); {
					n := 1
					for i+n < len(blocks) && blocks[i+n] == blocks[i]+uint64(n) {
						n++
					}
					if !yield(blocks[i], uint64(n)) {
						return
					}
					i += n
				}
			}
		}
		if !yield(di) {
			return
		}
	}
}

func (s *fakeSource) inode(op string, ino uint64) (*fakeInode, error) {
	if err := s.check(op, ino); err != nil {
		return nil, err
	}
	in := s.inos[ino]
	if in == nil {
		return nil, fmt.Errorf("inode %d: %w", ino, fs.ErrNotExist)
	}
	return in, nil
}

func (s *fakeSource) Inode(_ context.Context, ino uint64) (tree.Inode, error) {
	in, err := s.inode("inode", ino)
	if err != nil {
		return tree.Inode{}, err
	}
	return in.Inode, nil
}

func (s *fakeSource) Entry(_ context.Context, dir uint64, name string) (tree.Dirent, bool, error) {
	in, err := s.inode("entry", dir)
	if err != nil {
		return tree.Dirent{}, false, err
	}
	ino, ok := in.names[name]
	if !ok {
		return tree.Dirent{}, false, nil
	}
	return tree.Dirent{Name: name, Ino: ino, Type: tree.TypeOf(s.inos[ino].Mode)}, true, nil
}

func (s *fakeSource) Entries(_ context.Context, dir uint64) ([]tree.Dirent, error) {
	in, err := s.inode("entries", dir)
	if err != nil {
		return nil, err
	}
	var out []tree.Dirent
	for name, ino := range in.names {
		out = append(out, tree.Dirent{Name: name, Ino: ino, Type: tree.TypeOf(s.inos[ino].Mode)})
	}
	return out, nil
}

func (s *fakeSource) ReadAt(_ context.Context, ino uint64, p []byte, off int64) error {
	in, err := s.inode("read", ino)
	if err != nil {
		return err
	}
	if off%BlockSize != 0 || len(p)%BlockSize != 0 {
		return fmt.Errorf("read of %d bytes at %d is not aligned", len(p), off)
	}
	s.mu.Lock()
	s.read += int64(len(p))
	s.mu.Unlock()
	clear(p)
	for b := range len(p) / BlockSize {
		copy(block(p, b), in.blocks[uint64(off)/BlockSize+uint64(b)])
	}
	return nil
}

func (s *fakeSource) NextData(_ context.Context, ino uint64, off int64) (start, end int64, err error) {
	in, err := s.inode("nextdata", ino)
	if err != nil {
		return 0, 0, err
	}
	return in.nextData(off)
}

func (in *fakeInode) nextData(off int64) (start, end int64, err error) {
	blocks := slices.Sorted(maps.Keys(in.blocks))
	i, _ := slices.BinarySearch(blocks, uint64(off)/BlockSize)
	if i == len(blocks) || off >= in.Size {
		return 0, 0, io.EOF
	}
	n := 1
	for i+n < len(blocks) && blocks[i+n] == blocks[i]+uint64(n) {
		n++
	}
	start, end = int64(blocks[i])*BlockSize, int64(blocks[i]+uint64(n))*BlockSize
	if end > in.Size {
		end = in.Size
	}
	return max(start, off), end, nil
}

func (s *fakeSource) Done(ino uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[ino] = true
}

// Release merges the marks into the running epoch if the seal failed. Tests seal one epoch at a time.
func (s *fakeSource) Release(sealed bool) {
	s.releases = append(s.releases, sealed)
	if sealed {
		return
	}
	for ino, d := range s.dirty {
		to := s.vol.dirty[ino]
		if to == nil {
			s.vol.dirty[ino] = d
			continue
		}
		to.content, to.allNames, to.fresh = to.content || d.content, to.allNames || d.allNames, to.fresh || d.fresh
		maps.Copy(to.names, d.names)
		maps.Copy(to.blocks, d.blocks)
	}
}
