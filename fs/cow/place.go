package cow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"graphvol/fs/cow/epoch"
)

// The backing reaches inodes by where they were last seen, and forgets those that nobody uses. place finds them again: by
// hints in dirty maps, by what listing directories has shown, and at the very last by walking the volume.

// place is a name of an inode.
type place struct {
	parent uint64
	name   string
	dir    bool // it names a directory
}

var errNotFound = errors.New("no longer at its last known place")

// seen remembers where Entries has found an inode.
func (e *Ended) seen(ino uint64, p place) {
	if ino == 0 {
		return
	}
	e.places.Lock()
	defer e.places.Unlock()
	if e.places.m == nil {
		e.places.m = map[uint64]place{}
	}
	e.places.m[ino] = p
}

// searchesForDirs is how often the volume is walked for a directory: it may move from where the walk hasn't been to where it has.
const searchesForDirs = 4

// located runs act, which needs the backing to know ino, and teaches it where ino is if it doesn't. An inode that is found nowhere has
// gone: ENOENT.
func (e *Ended) located(ctx context.Context, ino uint64, act func() error) error {
	return e.locatedBy(ctx, ino, 1, act)
}

// locatedDir is located for a directory, whose going is always marked: errNotFound says that it is somewhere.
func (e *Ended) locatedDir(ctx context.Context, ino uint64, act func() error) error {
	return e.locatedBy(ctx, ino, searchesForDirs, act)
}

func (e *Ended) locatedBy(ctx context.Context, ino uint64, searches int, act func() error) error {
	for walks := 0; ; {
		err := act()
		if !errors.Is(err, syscall.ESTALE) {
			return err
		}
		if e.v.locate(ino, e.placesOf) == nil {
			if err = act(); !errors.Is(err, syscall.ESTALE) {
				return err
			}
		}
		if e.removed(ino) {
			return syscall.ENOENT
		}
		if walks >= searches {
			return fmt.Errorf("%w: %w", errNotFound, syscall.ENOENT)
		}
		if walks, err = e.search(ctx, walks); err != nil {
			return err
		}
	}
}

// removed tells whether the inode's last name went in this epoch or later, and its number isn't in use again.
func (e *Ended) removed(ino uint64) bool {
	return removedIn(e.epochsDown(), ino)
}

// removedIn tells whether the newest of these epochs that knows the inode saw its last name go. eps are descending.
func removedIn(eps []*epoch.Epoch, ino uint64) bool {
	for _, ep := range eps {
		if in := ep.Find(ino); marked(in) {
			return in.HasRemoved()
		}
	}
	return false
}

// epochsDown lists the epochs from the running one down to the oldest of e's.
func (e *Ended) epochsDown() (eps []*epoch.Epoch) {
	later := e.laterEpochs()
	for i := len(later) - 1; i >= 0; i-- {
		eps = append(eps, later[i])
	}
	parts := *e.parts.Load()
	for i := len(parts) - 1; i >= 0; i-- {
		eps = append(eps, parts[i].ep)
	}
	return eps
}

// locate makes the backing know ino again. places lists where an inode may be.
func (v *Volume) locate(ino uint64, places func(ino uint64) []place) error {
	l := &locating{v: v, places: places, above: map[uint64]bool{}, inVain: map[uint64]bool{}, found: map[uint64]bool{}}
	return l.find(ino)
}

// locating is one locate. Old places lead in circles: a directory was in another one which later was in it. So no inode is looked for below itself, and
// none twice in vain, until another one was found, with which it may be.
type locating struct {
	v      *Volume
	places func(ino uint64) []place
	above  map[uint64]bool // what is being looked for
	inVain map[uint64]bool // since the last find
	found  map[uint64]bool
}

func (l *locating) find(ino uint64) error {
	if _, err := l.v.tree.Stat(ino); err == nil {
		return nil
	}
	if l.above[ino] || l.inVain[ino] {
		return errNotFound
	}
	l.above[ino] = true
	defer delete(l.above, ino)
	for _, p := range l.places(ino) {
		if l.find(p.parent) != nil {
			continue
		}
		a, err := l.v.tree.Lookup(p.parent, p.name)
		if err != nil {
			continue
		}
		l.v.tree.Forget(a.Ino, 1) // known, but not for ever
		if !l.found[a.Ino] {
			l.found[a.Ino] = true
			clear(l.inVain)
		}
		if a.Ino == ino {
			return nil
		}
	}
	l.inVain[ino] = true
	return errNotFound
}

// placesOf lists where an inode may be, the newest knowledge first.
func (e *Ended) placesOf(ino uint64) (ps []place) {
	ps = hintsIn(e.epochsDown(), ino)
	e.places.Lock()
	defer e.places.Unlock()
	if p, ok := e.places.m[ino]; ok {
		ps = append(ps, p)
	}
	return ps
}

// hintsIn lists where epochs saw an inode last.
func hintsIn(eps []*epoch.Epoch, ino uint64) (ps []place) {
	for _, ep := range eps {
		if in := ep.Find(ino); in != nil {
			if parent, name := in.Hint(); parent != 0 {
				ps = append(ps, place{parent: parent, name: name})
			}
		}
	}
	return ps
}

// search walks the volume and remembers where all changed inodes are, unless it was walked more often than walks says. It returns how often
// that was. It is for hints that have become wrong, such as the name of a hard link that went.
func (e *Ended) search(ctx context.Context, walks int) (int, error) {
	// Who comes while another one walks waits for what it finds.
	e.searching.Lock()
	defer e.searching.Unlock()
	e.places.Lock()
	walked := e.places.walks
	e.places.Unlock()
	if walked > walks {
		return walked, nil
	}
	e.v.log.Info("looking for changed files by walking the volume", "epoch", e.number)
	err := e.v.walk(ctx, e.v.tree.Root(), func(a Attr, p place) error {
		if isDir(a) || e.mentions(a.Ino) {
			e.seen(a.Ino, p)
		}
		return nil
	})
	if err != nil {
		return walked, err
	}
	e.places.Lock()
	defer e.places.Unlock()
	e.places.walks++
	return e.places.walks, nil
}

func (e *Ended) mentions(ino uint64) bool {
	for _, p := range *e.parts.Load() {
		if marked(p.ep.Find(ino)) {
			return true
		}
	}
	return e.Full()
}

// walk calls fn for everything below dir, directories before what is in them. What disappears meanwhile is left out.
func (v *Volume) walk(ctx context.Context, dir uint64, fn func(Attr, place) error) error {
	list, err := v.tree.ReadDir(dir)
	if err != nil {
		if errors.Is(notExist(err), fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, d := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		a, err := v.tree.StatName(dir, d.Name)
		if errors.Is(notExist(err), fs.ErrNotExist) || errors.Is(err, syscall.EXDEV) {
			continue
		}
		if err != nil {
			return err
		}
		if err := fn(a, place{dir, d.Name, isDir(a)}); err != nil {
			return err
		}
		if isDir(a) {
			if err := v.walkDown(ctx, dir, d.Name, a, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// walkDown walks a subdirectory, which the backing knows for that time.
func (v *Volume) walkDown(ctx context.Context, dir uint64, name string, a Attr, fn func(Attr, place) error) error {
	b, err := v.tree.Lookup(dir, name)
	if err != nil {
		return nil // gone, or replaced: whoever did that has marked it
	}
	defer v.tree.Forget(b.Ino, 1)
	if b.Ino != a.Ino {
		return nil
	}
	return v.walk(ctx, b.Ino, fn)
}

// heldInodes lists what is held.
func (v *Volume) heldInodes() (inos []uint64) {
	v.held.Lock()
	defer v.held.Unlock()
	for ino := range v.held.m {
		inos = append(inos, ino)
	}
	return inos
}

// dropHeld lets go of a file without a name once no unsealed snapshot may read it.
func (v *Volume) dropHeld(ino uint64) {
	for _, e := range *v.unsealed.Load() {
		if e.Err() == nil && !e.isDone(ino) {
			if _, _, gone := v.images.attr(e.number, ino); gone == goneHeld {
				return
			}
		}
	}
	v.letGo(ino)
}
