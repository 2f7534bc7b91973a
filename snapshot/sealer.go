package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"graphvol/chunkstore"
	"graphvol/snapshot/tree"
)

// inodeWorkers is the number of inodes in work at a time: small files wait for each other's reads otherwise.
const inodeWorkers = 4

// largeFile is the size from which files are sealed one after the other, bytes: what belongs together then lies together in the packs, and is read back with few
// requests. Such a file has enough segments to keep everybody busy.
const largeFile = 8 << 20

// sealer is one running seal.
type sealer struct {
	ctx    context.Context
	cancel context.CancelCauseFunc // ends the work on all inodes when one fails
	repo   *Repo
	src    Source
	w      *chunkstore.Writer
	parent tree.Root // the zero Root if all is new
	prints *sealPrints
	jobs   chan *segmentJob
	large  chan struct{} // room for one: a large file that is being sealed whole

	files, read, stored, dirtyBytes atomic.Int64

	mu struct {
		sync.Mutex
		edits      []tree.Edit         // of the inode table, in any order
		seen       map[uint64]struct{} // inodes that were or are being sealed
		named      map[uint64]struct{} // inodes that changed directories name
		filesDelta int64
		bytesDelta int64
	}
}

func newSealer(ctx context.Context, r *Repo, src Source, w *chunkstore.Writer) *sealer {
	s := &sealer{ctx: ctx, repo: r, src: src, w: w, jobs: make(chan *segmentJob), large: make(chan struct{}, 1)}
	s.mu.seen = make(map[uint64]struct{})
	s.mu.named = make(map[uint64]struct{})
	return s
}

// report calls progress now and then until the function it returns is called.
func (s *sealer) report(progress func(Progress)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	say := func() {
		progress(Progress{Files: s.files.Load(), Bytes: s.read.Load(), Stored: s.stored.Load()})
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(progressEvery)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				say()
			case <-end:
				say()
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// run seals all inodes and gives the snapshot's root record.
func (s *sealer) run(full bool) (tree.Root, error) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	s.ctx, s.cancel = ctx, cancel
	s.prints = s.repo.prints.begin(full)
	var pool sync.WaitGroup
	for range s.repo.cfg.Workers {
		pool.Go(s.segmentWorker)
	}
	err := s.inodes(full)
	close(s.jobs)
	pool.Wait()
	if err != nil {
		// Whichever goroutine returned first, the first failure is the reason.
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
		return tree.Root{}, err
	}
	return s.root()
}

func (s *sealer) inodes(full bool) error {
	if full {
		return s.walk([]uint64{s.src.Root()})
	}
	if err := s.dirty(); err != nil {
		return err
	}
	// What changed directories name must be in the table. It is, unless the dirty map misses an inode.
	var missing []uint64
	for ino := range s.mu.named {
		known, err := s.known(ino)
		if err != nil {
			return err
		}
		if !known {
			missing = append(missing, ino)
		}
	}
	slices.Sort(missing)
	return s.walk(missing)
}

// dirty seals the inodes of the dirty map.
func (s *sealer) dirty() error {
	var g errgroup.Group
	feed := make(chan DirtyInode)
	for range inodeWorkers {
		g.Go(func() error {
			for d := range feed {
				if _, err := s.inode(d); err != nil {
					s.cancel(err)
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(feed)
		s.src.Dirty(func(d DirtyInode) bool {
			s.claim(d.Ino)
			select {
			case feed <- d:
				return true
			case <-s.ctx.Done():
				return false
			}
		})
		return s.ctx.Err()
	})
	return g.Wait()
}

// walk seals inodes as new ones, and all that is below them and not in the parent's table.
func (s *sealer) walk(start []uint64) error {
	q := newWalkQueue()
	for _, ino := range start {
		if s.claim(ino) {
			q.push(ino)
		}
	}
	defer context.AfterFunc(s.ctx, q.stop)()
	var g errgroup.Group
	for range inodeWorkers {
		g.Go(func() error {
			for {
				ino, ok := q.pop()
				if !ok {
					return s.ctx.Err()
				}
				if err := s.visit(q, ino); err != nil {
					s.cancel(err)
					return err
				}
				q.finished()
			}
		})
	}
	return g.Wait()
}

// visit seals an inode and queues what it names that is new.
func (s *sealer) visit(q *walkQueue, ino uint64) error {
	children, err := s.inode(DirtyInode{Ino: ino, Fresh: true})
	if err != nil {
		return err
	}
	slices.SortFunc(children, func(a, b uint64) int { return cmp.Compare(b, a) }) // the last one comes out first
	for _, c := range children {
		known, err := s.known(c)
		if err != nil {
			return err
		}
		if !known && s.claim(c) {
			q.push(c)
		}
	}
	return nil
}

// claim tells whether the caller is the first to seal the inode.
func (s *sealer) claim(ino uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, seen := s.mu.seen[ino]
	s.mu.seen[ino] = struct{}{}
	return !seen
}

// known tells whether an inode was sealed or is unchanged since the parent.
func (s *sealer) known(ino uint64) (bool, error) {
	s.mu.Lock()
	_, seen := s.mu.seen[ino]
	s.mu.Unlock()
	if seen {
		return true, nil
	}
	_, ok, err := s.repo.nodes.Get(s.ctx, s.parent.Inodes, ino, "")
	return ok, err
}

// inode seals one inode and gives the inodes that it names as a directory, as far as they may be new.
func (s *sealer) inode(d DirtyInode) (children []uint64, err error) {
	defer s.src.Done(d.Ino)
	defer s.files.Add(1)
	oldRec, hasOld, err := s.repo.nodes.Get(s.ctx, s.parent.Inodes, d.Ino, "")
	if err != nil {
		return nil, err
	}
	var old tree.Record
	if hasOld {
		if old, err = tree.DecodeRecord(d.Ino, oldRec); err != nil {
			return nil, err
		}
	}
	in, err := s.src.Inode(s.ctx, d.Ino)
	if errors.Is(err, fs.ErrNotExist) || err == nil && in.Nlink == 0 {
		s.remove(d.Ino, hasOld, &old)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", d.Ino, err)
	}
	in.Ino, in.Blocks, in.Content = d.Ino, 0, tree.Ref{}
	fresh := d.Fresh || !hasOld || old.Gen != in.Gen || (old.Mode^in.Mode)&tree.ModeType != 0
	switch {
	case in.IsRegular():
		err = s.file(&d, &in, &old.Inode, fresh)
	case in.IsDir():
		children, err = s.directory(&d, &in, &old.Inode, fresh)
	}
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", d.Ino, err)
	}
	rec, err := tree.EncodeInode(s.w, &in)
	if err != nil {
		return nil, err
	}
	s.replace(&in, rec, hasOld, &old, oldRec)
	return children, nil
}

func (s *sealer) remove(ino uint64, hasOld bool, old *tree.Record) {
	if !hasOld {
		return
	}
	s.prints.replace(&old.Inode, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.edits = append(s.mu.edits, tree.Edit{Entry: tree.Entry{Key: ino}, Delete: true})
	s.countLocked(&old.Inode, -1)
}

func (s *sealer) replace(in *tree.Inode, rec []byte, hasOld bool, old *tree.Record, oldRec []byte) {
	if hasOld {
		s.prints.replace(&old.Inode, in)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if hasOld {
		s.countLocked(&old.Inode, -1)
	}
	s.countLocked(in, 1)
	if !hasOld || !bytes.Equal(rec, oldRec) {
		s.mu.edits = append(s.mu.edits, tree.Edit{Entry: tree.Entry{Key: in.Ino, Value: rec}})
	}
}

func (s *sealer) countLocked(in *tree.Inode, sign int64) {
	if in.IsRegular() {
		s.mu.filesDelta += sign
		s.mu.bytesDelta += sign * in.Size
	}
}

// directory seals the names of a directory, and gives the inodes of those that changed.
func (s *sealer) directory(d *DirtyInode, in, old *tree.Inode, fresh bool) ([]uint64, error) {
	if fresh || d.AllNames {
		return s.allNames(in)
	}
	in.Content = old.Content
	var children []uint64
	edits := make([]tree.Edit, 0, len(d.Names))
	for _, name := range d.Names {
		de, ok, err := s.src.Entry(s.ctx, d.Ino, name)
		if err != nil {
			return nil, fmt.Errorf("name %q: %w", name, err)
		}
		de.Name = name
		edits = append(edits, tree.Edit{Entry: tree.DirEntry(de), Delete: !ok})
		if ok {
			children = append(children, de.Ino)
		}
	}
	slices.SortFunc(edits, tree.Edit.Compare)
	edits = slices.CompactFunc(edits, func(a, b tree.Edit) bool { return a.Compare(b) == 0 })
	var err error
	in.Content, err = s.repo.nodes.Apply(s.ctx, s.w, old.Content, edits)
	s.name(children)
	return children, err
}

func (s *sealer) allNames(in *tree.Inode) ([]uint64, error) {
	entries, err := s.src.Entries(s.ctx, in.Ino)
	if err != nil {
		return nil, fmt.Errorf("list directory: %w", err)
	}
	children := make([]uint64, 0, len(entries))
	edits := make([]tree.Edit, 0, len(entries))
	for _, de := range entries {
		children = append(children, de.Ino)
		edits = append(edits, tree.Edit{Entry: tree.DirEntry(de)})
	}
	slices.SortFunc(edits, tree.Edit.Compare)
	in.Content, err = s.repo.nodes.Apply(s.ctx, s.w, tree.Ref{}, edits)
	s.name(children)
	return children, err
}

// name notes what changed directories name.
func (s *sealer) name(inos []uint64) {
	if s.parent.Ino == 0 {
		return // all is walked anyway
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ino := range inos {
		if _, ok := s.mu.seen[ino]; !ok {
			s.mu.named[ino] = struct{}{}
		}
	}
}

// root makes the inode table and the root record.
func (s *sealer) root() (tree.Root, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.mu.edits, tree.Edit.Compare)
	inodes, err := s.repo.nodes.Apply(s.ctx, s.w, s.parent.Inodes, s.mu.edits)
	if err != nil {
		return tree.Root{}, fmt.Errorf("inode table: %w", err)
	}
	if _, ok := s.mu.seen[s.src.Root()]; !ok && s.parent.Ino != s.src.Root() {
		return tree.Root{}, fmt.Errorf("the root directory is inode %d, was %d, and nothing says so", s.src.Root(), s.parent.Ino)
	}
	return tree.Root{
		Ino:    s.src.Root(),
		Files:  s.parent.Files + s.mu.filesDelta,
		Bytes:  s.parent.Bytes + s.mu.bytesDelta,
		Inodes: inodes,
	}, nil
}
