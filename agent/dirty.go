package agent

import (
	"context"

	"graphvol/agent/api"
	"graphvol/fs/cow"
)

// changes are what has changed since the newest complete snapshot.
type changes interface {
	// Dirty lists it, also what was made and removed since.
	Dirty(ctx context.Context, yield func(cow.DirtyFile) bool) error
	// Where tells the directory and the name under which a directory is known that Dirty has listed, or one above it; ok
	// is false for the root.
	Where(dir uint64) (parent uint64, name string, ok bool)
}

// dirtyBytes adds up what Dirty lists.
func dirtyBytes(ctx context.Context, list changes) (n int64, err error) {
	err = list.Dirty(ctx, func(f cow.DirtyFile) bool {
		n += f.Bytes
		return true
	})
	return n, err
}

// Dirty implements the API.
func (s *service) Dirty(req *api.DirtyRequest, stream api.Volume_DirtyServer) error {
	err := s.eachDirty(stream.Context(), func(f cow.DirtyFile) error {
		m := &api.DirtyFile{Path: []byte(f.Path), DirtyBytes: f.Bytes, Ino: f.Ino, Removed: f.Removed}
		if req.GetRanges() {
			for _, r := range f.Ranges {
				m.Ranges = append(m.Ranges, &api.Range{Offset: r.Off, Length: r.Len})
			}
		}
		return stream.Send(m)
	})
	return statusOf(stream.Context(), s.log, "listing what has changed", err)
}

// eachDirty lists what has changed since the newest complete snapshot: what is there, then what that snapshot has and the
// volume has not.
func (s *service) eachDirty(ctx context.Context, yield func(cow.DirtyFile) error) error {
	var list changes = s.live
	if s.live == nil {
		list = &leftChanges{service: s}
	}
	// The snapshot first: what a seal completes meanwhile is listed as well then, never left out.
	gone, err := s.newRemoved(ctx, list)
	if err != nil {
		return err
	}
	defer gone.close()
	var failed error
	err = list.Dirty(ctx, func(f cow.DirtyFile) bool {
		if failed = gone.look(ctx, f); failed == nil && !f.Removed {
			failed = yield(f)
		}
		return failed == nil
	})
	if failed == nil {
		failed = err
	}
	if failed != nil {
		return failed
	}
	return gone.each(yield)
}
