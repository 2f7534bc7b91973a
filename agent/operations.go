package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"graphvol/agent/api"
	"graphvol/index"
	"graphvol/snapshot"
)

// resolveAll finds the snapshots that are named; without a name, all in the catalogue that are complete.
func (s *service) resolveAll(refs []string) ([]index.Snapshot, error) {
	if len(refs) > 0 {
		var out []index.Snapshot
		seen := make(map[string]bool)
		for _, ref := range refs {
			snap, err := s.repo.Resolve(ref)
			if err != nil {
				return nil, err
			}
			if !seen[snap.ID] {
				out = append(out, snap)
			}
			seen[snap.ID] = true
		}
		return out, nil
	}
	list, err := s.repo.Snapshots()
	if err != nil {
		return nil, err
	}
	var out []index.Snapshot
	for _, snap := range list {
		if snap.State == index.StateComplete {
			out = append(out, snap)
		}
	}
	return out, nil
}

// reader opens the snapshot that ref names.
func (s *service) reader(ctx context.Context, ref string) (*snapshot.Reader, error) {
	snap, err := s.repo.Resolve(ref)
	if err != nil {
		return nil, err
	}
	return s.repo.Reader(ctx, snap)
}

// Diff implements the API.
func (s *service) Diff(req *api.DiffRequest, stream api.Volume_DiffServer) error {
	ctx := stream.Context()
	a, err := s.reader(ctx, req.GetA())
	if err != nil {
		return statusOf(ctx, s.log, "the comparison", err)
	}
	defer a.Close()
	b, err := s.reader(ctx, req.GetB())
	if err != nil {
		return statusOf(ctx, s.log, "the comparison", err)
	}
	defer b.Close()
	err = snapshot.Diff(ctx, a, b, snapshot.DiffOptions{Ranges: req.GetRanges()}, func(c snapshot.Change) error {
		m := &api.Change{
			Path: []byte(c.Path), OldPath: []byte(c.OldPath), Kind: string(c.Kind), ChangedBytes: c.Bytes, Content: c.Content, Attributes: c.Attr, Link: c.Link,
		}
		for _, r := range c.Ranges {
			m.Ranges = append(m.Ranges, &api.Range{Offset: r.Off, Length: r.Len})
		}
		return stream.Send(m)
	})
	return statusOf(ctx, s.log, "the comparison", err)
}

// meter passes figures on, not more often than anybody can read. It may be called from several goroutines; a stream may
// not, so all that is sent while the work runs goes through it.
type meter struct {
	out func(*api.Progress) error

	mu struct {
		sync.Mutex
		last time.Time
		err  error
	}
}

func newMeter(out func(*api.Progress) error) *meter { return &meter{out: out} }

// tell sends figures, or drops them if it is too early.
func (m *meter) tell(p *api.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.err != nil || time.Since(m.mu.last) < progressPause {
		return
	}
	m.mu.last = time.Now()
	m.mu.err = m.out(p)
}

// send sends something else. Errors are dropped: a client that is gone ends the call's context.
func (m *meter) send(fn func() error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.err = errors.Join(m.mu.err, fn())
}
