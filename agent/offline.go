package agent

import (
	"context"
	"errors"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"google.golang.org/grpc/codes"

	"graphvol/fs/cow"
	"graphvol/fs/cow/epoch"
	"graphvol/index"
	"graphvol/snapshot"
)

// offline is the service of a volume that isn't mounted, in the process of a command.
type offline struct{ *service }

// openOffline opens the repository of a volume that isn't mounted. index.ErrInUse if another process has it.
func openOffline(ctx context.Context, p Place, log *slog.Logger) (*offline, error) {
	facts, err := ReadFacts(p.State)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, statusOf(log, "opening the volume", err)
	}
	repo, err := snapshot.Open(ctx, snapshot.Config{State: p.State, Log: log})
	if err != nil {
		return nil, statusOf(log, "opening the volume", err)
	}
	return &offline{newService(serviceConfig{state: p.State, facts: facts, repo: repo, log: log})}, nil
}

// Close closes the repository.
func (o *offline) Close() error { return o.repo.Close() }

// dirtyOffline tells what the last unmount left: the dirty maps in the index. Changes made since, behind graphvol's back,
// are found by the next mount.
func (s *service) dirtyOffline(ctx context.Context, yield func(cow.DirtyFile) bool) error {
	left, err := epoch.List(filepath.Join(s.state, "epochs"))
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return refuse(codes.FailedPrecondition, "the volume was not unmounted in order, so what has changed is known when it is mounted again")
	}
	files := make(map[uint64]*cow.DirtyFile)
	if err := s.loadDirty(files); err != nil {
		return err
	}
	_, known, err := s.repo.Newest()
	if err != nil {
		return err
	}
	return s.walkBacking(ctx, func(path string, ino uint64, size int64, regular bool) bool {
		f := files[ino]
		switch {
		case f == nil && known:
			return true
		case f == nil, f.Whole && regular:
			f = &cow.DirtyFile{Ino: ino, Whole: true}
			if regular && size > 0 {
				f.Bytes, f.Ranges = size, []cow.DirtyRange{{Off: 0, Len: size}}
			}
		}
		f.Path = path
		delete(files, ino)
		return yield(*f)
	})
}

// loadDirty reads all epochs that are not in a complete snapshot.
func (s *service) loadDirty(files map[uint64]*cow.DirtyFile) error {
	db := s.repo.Index()
	epochs, err := db.Epochs()
	if err != nil {
		return err
	}
	for _, n := range epochs {
		err := db.LoadEpoch(n, func(d *index.Dirty) error {
			f := files[d.Ino]
			if f == nil {
				f = &cow.DirtyFile{Ino: d.Ino}
				files[d.Ino] = f
			}
			f.Whole = f.Whole || d.Flags&(index.DirtyContent|index.DirtyFresh) != 0
			if d.Blocks == nil || f.Whole {
				return nil
			}
			addRanges(f, d)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addRanges adds an epoch's dirty blocks. Those of several epochs may overlap: they are rare, and Bytes then says too much.
func addRanges(f *cow.DirtyFile, d *index.Dirty) {
	const block = snapshot.BlockSize
	it := d.Blocks.Iterator()
	for it.HasNext() {
		off := int64(it.Next()) * block
		f.Bytes += block
		if n := len(f.Ranges); n > 0 && f.Ranges[n-1].Off+f.Ranges[n-1].Len == off {
			f.Ranges[n-1].Len += block
			continue
		}
		f.Ranges = append(f.Ranges, cow.DirtyRange{Off: off, Len: block})
	}
}

// walkBacking goes through the backing directory: paths of the dirty inodes are not recorded.
func (s *service) walkBacking(ctx context.Context, fn func(path string, ino uint64, size int64, regular bool) bool) error {
	return filepath.WalkDir(s.facts.Backing, func(path string, e iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		rel, err := filepath.Rel(s.facts.Backing, path)
		if err != nil {
			return err
		}
		if !fn(rel, st.Ino, st.Size, info.Mode().IsRegular()) {
			return iofs.SkipAll
		}
		return nil
	})
}
