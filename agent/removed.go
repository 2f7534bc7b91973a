package agent

import (
	"context"
	"errors"
	iofs "io/fs"
	"slices"
	"strings"

	"graphvol/fs/cow"
	"graphvol/snapshot"
	"graphvol/snapshot/tree"
)

// removed finds what the newest complete snapshot has and the volume has no more, and where it was. A snapshot's tree
// doesn't tell where an inode is. But whatever went has lost its name, and a directory that lost a name is in the dirty map, with
// that name; what has not lost one is where it was.
type removed struct {
	rd    *snapshot.Reader // nil: there is no snapshot, so nothing was removed
	now   changes
	inos  []uint64
	names map[uint64]entry // of what changed directories had, as of the snapshot: one for each inode
}

// entry is a name in a directory.
type entry struct {
	dir  uint64
	name string
}

func (s *service) newRemoved(ctx context.Context, now changes) (*removed, error) {
	r := &removed{now: now, names: make(map[uint64]entry)}
	newest, known, err := s.repo.Newest()
	if err == nil && known {
		r.rd, err = s.repo.Reader(ctx, newest)
	}
	return r, err
}

func (r *removed) close() {
	if r.rd != nil {
		r.rd.Close()
	}
}

// look takes in what has changed of one inode.
func (r *removed) look(ctx context.Context, f cow.DirtyFile) error {
	if r.rd == nil || !f.Removed && !f.Fresh && !f.Whole && !f.AllNames && len(f.Names) == 0 {
		return nil
	}
	in, err := r.rd.Inode(ctx, f.Ino)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// The number may be another inode's by now.
	gone := f.Removed || f.Fresh || f.Gen != 0 && in.Gen != 0 && f.Gen != in.Gen
	if gone {
		r.inos = append(r.inos, f.Ino)
	}
	switch {
	case !in.IsDir():
		return nil
	case gone || f.AllNames:
		return r.lookAtAll(ctx, f.Ino)
	}
	return r.lookAt(ctx, f.Ino, f.Names)
}

func (r *removed) lookAtAll(ctx context.Context, dir uint64) error {
	list, err := r.rd.ReadDir(ctx, dir)
	for _, d := range list {
		r.had(dir, d)
	}
	return err
}

func (r *removed) lookAt(ctx context.Context, dir uint64, names []string) error {
	for _, name := range names {
		d, err := r.rd.Lookup(ctx, dir, name)
		if errors.Is(err, iofs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		r.had(dir, d)
	}
	return nil
}

func (r *removed) had(dir uint64, d tree.Dirent) {
	if _, ok := r.names[d.Ino]; !ok {
		r.names[d.Ino] = entry{dir, d.Name}
	}
}

// each lists what was found, with its path in the snapshot.
func (r *removed) each(yield func(cow.DirtyFile) error) error {
	for _, ino := range r.inos {
		if err := yield(cow.DirtyFile{Ino: ino, Path: r.path(ino), Removed: true}); err != nil {
			return err
		}
	}
	return nil
}

// path is an inode's path in the snapshot. A directory that isn't among the names has been where it is now.
func (r *removed) path(ino uint64) string {
	const deepest = 1 << 16 // should what is known of places be a circle
	var parts []string
	for ino != r.rd.Root() {
		e, ok := r.names[ino]
		if !ok {
			e.dir, e.name, ok = r.now.Where(ino)
		}
		if !ok || len(parts) == deepest {
			return ""
		}
		parts = append(parts, e.name)
		ino = e.dir
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}
