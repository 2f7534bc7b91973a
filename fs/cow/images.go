package cow

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"graphvol/snapshot/tree"
)

// images are the preimages: blocks, names and attributes as of a barrier, saved before their first change after it. Every
// preimage carries a label, the number of the epoch that had ended last; a snapshot reads the first one with a label
// not below its own epoch's number, else what is live.
//
// Blocks are in one file a label, names and attributes in memory. Nothing of it outlives the process: snapshots
// that weren't sealed by then are dropped.
type images struct {
	dir    string
	tables atomic.Pointer[[]*imageTable] // ascending labels; copied on write under mu
	mu     sync.Mutex
	left   []string // files that could not be removed; guarded by mu

	sweeping sync.WaitGroup
}

// imageTable holds the preimages of one label.
type imageTable struct {
	label uint64

	mu struct {
		sync.RWMutex
		file   *os.File                         // nil until the first block comes
		blocks uint64                           // records in file, written or being written
		pages  map[uint64]map[uint64]*imagePage // by inode, then by page
		attrs  map[uint64]*tree.Inode
		names  map[uint64]map[string]nameImage
		gone   map[uint64]goneKind
	}
}

// nameImage is what a name meant; ino 0: nothing.
type nameImage struct {
	ino uint64
	typ uint8
}

// goneKind says how an inode whose last name went is to be read.
type goneKind uint8

const (
	goneNot   goneKind = iota
	goneHeld           // a descriptor is held: it is live for whoever needs it
	goneSaved          // everything needed is saved, and the number may mean another inode by now
	goneSoon           // as goneSaved for who reads; but the name may yet stay, so who changes something goes on saving
)

// saved tells who reads that there is nothing live to look for.
func (g goneKind) saved() bool { return g == goneSaved || g == goneSoon }

// openImages begins without preimages. Removing those that a server left may take long, since they may be gigabytes: that is done in the background, and
// waited for by close.
func openImages(dir string, log *slog.Logger) (*images, error) {
	im := &images{dir: dir}
	if err := im.sweep(log); err != nil {
		return nil, fmt.Errorf("old preimages: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("preimages: %w", err)
	}
	im.tables.Store(&[]*imageTable{})
	return im, nil
}

// oldSuffix marks directories that are being removed.
const oldSuffix = ".old-"

// sweep moves what is there out of the way, and removes it.
func (im *images) sweep(log *slog.Logger) error {
	aside := fmt.Sprint(im.dir, oldSuffix, time.Now().UnixNano())
	if err := os.Rename(im.dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		if err := os.RemoveAll(im.dir); err != nil {
			return err
		}
	}
	list, err := os.ReadDir(filepath.Dir(im.dir))
	if err != nil {
		return err
	}
	im.sweeping.Go(func() {
		for _, d := range list { // also of a server that was killed here
			if !strings.HasPrefix(d.Name(), filepath.Base(im.dir)+oldSuffix) {
				continue
			}
			if err := os.RemoveAll(filepath.Join(filepath.Dir(im.dir), d.Name())); err != nil {
				log.Warn("preimages that nobody needs stay behind", "name", d.Name(), "err", err)
			}
		}
	})
	return nil
}

// add opens a new label, unless a barrier that failed has opened it. Nothing is written yet, so it cannot fail.
func (im *images) add(label uint64) {
	if im.table(label) != nil {
		return
	}
	t := &imageTable{label: label}
	t.empty()
	im.mu.Lock()
	defer im.mu.Unlock()
	old := *im.tables.Load()
	list := append(old[:len(old):len(old)], t)
	im.tables.Store(&list)
}

// drop removes the labels below first, which no unsealed snapshot reads. That of the running epoch, current, is
// emptied at most: requests in flight may be saving for a snapshot that has just been released.
func (im *images) drop(first, current uint64) {
	im.mu.Lock()
	defer im.mu.Unlock()
	var rest []*imageTable
	for _, t := range *im.tables.Load() {
		if t.label < first {
			if file := t.empty(); file != "" {
				im.left = append(im.left, file)
			}
		}
		if t.label >= min(first, current) {
			rest = append(rest, t)
		}
	}
	im.tables.Store(&rest)
	im.left = slices.DeleteFunc(im.left, func(file string) bool {
		err := os.Remove(file)
		return err == nil || errors.Is(err, fs.ErrNotExist)
	})
}

// empty removes everything from a table. Its file, if it has one, is left to be removed.
func (t *imageTable) empty() (file string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.file != nil {
		t.mu.file.Close()
		file = t.mu.file.Name()
	}
	t.mu.file, t.mu.blocks = nil, 0
	t.mu.pages, t.mu.attrs = map[uint64]map[uint64]*imagePage{}, map[uint64]*tree.Inode{}
	t.mu.names, t.mu.gone = map[uint64]map[string]nameImage{}, map[uint64]goneKind{}
	return file
}

// table returns that of a label; there is one from the barrier on that made the label.
func (im *images) table(label uint64) *imageTable {
	list := *im.tables.Load()
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].label == label {
			return list[i]
		}
	}
	return nil
}

// from gives the labels that a snapshot of epoch k reads, the first first.
func (im *images) from(k uint64) []*imageTable {
	list := *im.tables.Load()
	for len(list) > 0 && list[0].label < k {
		list = list[1:]
	}
	return list
}

func (im *images) saveAttr(label, ino uint64, a *tree.Inode) {
	t := im.table(label)
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.mu.attrs[ino]; !ok {
		t.mu.attrs[ino] = a
	}
}

// attr returns the attributes saved for epoch k, if any, with their label, and whether the inode went since.
func (im *images) attr(k, ino uint64) (a *tree.Inode, label uint64, gone goneKind) {
	for _, t := range im.from(k) {
		t.mu.RLock()
		a, g := t.mu.attrs[ino], t.mu.gone[ino]
		t.mu.RUnlock()
		if a != nil {
			return a, t.label, g
		}
		if g != goneNot {
			gone = g
		}
		if g.saved() {
			break
		}
	}
	return nil, 0, gone
}

func (im *images) hasAttr(k, ino uint64) bool {
	a, _, g := im.attr(k, ino)
	return a != nil || g == goneSaved
}

func (im *images) saveName(label, dir uint64, name string, img nameImage) {
	t := im.table(label)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.names[dir] == nil {
		t.mu.names[dir] = map[string]nameImage{}
	}
	t.mu.names[dir][name] = img
}

// name returns what a name meant for epoch k, if that was saved, and whether the directory is gone.
func (im *images) name(k, dir uint64, name string) (img nameImage, ok bool, gone goneKind) {
	for _, t := range im.from(k) {
		t.mu.RLock()
		img, ok = t.mu.names[dir][name]
		g := t.mu.gone[dir]
		t.mu.RUnlock()
		if ok || g.saved() {
			return img, ok, g
		}
	}
	return nameImage{}, false, goneNot
}

func (im *images) hasName(k, dir uint64, name string) bool {
	_, ok, gone := im.name(k, dir, name)
	return ok || gone == goneSaved
}

// names returns all names of a directory saved for epoch k, and whether the directory is gone.
func (im *images) names(k, dir uint64) (all map[string]nameImage, gone bool) {
	all = map[string]nameImage{}
	for _, t := range im.from(k) {
		t.mu.RLock()
		for n, img := range t.mu.names[dir] {
			if _, older := all[n]; !older {
				all[n] = img
			}
		}
		g := t.mu.gone[dir]
		t.mu.RUnlock()
		if g.saved() {
			return all, true
		}
	}
	return all, false
}

func (im *images) setGone(label, ino uint64, k goneKind) {
	t := im.table(label)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.gone[ino] = k
}

func (im *images) clearGone(label, ino uint64) {
	t := im.table(label)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.mu.gone, ino)
}
