package snapshot

import (
	"io/fs"

	"graphvol/snapshot/tree"
)

// builderSink makes the content of a file from all of its segments.
type builderSink struct{ b *tree.Builder }

func (s builderSink) put(seg uint64, record []byte) error {
	if record == nil {
		return nil
	}
	return s.b.Add(tree.Entry{Key: seg, Value: record})
}

// editSink changes segments of a file's content. A few are applied to the old map; when they become many, it goes on by
// merging them with the old map into a new one, in bounded memory. Both ways give the same map.
type editSink struct {
	f     *fileSeal
	cut   uint64 // segments of the old content from here on are gone
	edits []tree.Edit
	merge *tree.Builder // nil at first
	from  uint64        // if merge isn't nil: the old map is merged up to here
}

func newEditSink(f *fileSeal, cut uint64) *editSink { return &editSink{f: f, cut: cut} }

func (s *editSink) put(seg uint64, record []byte) error {
	if s.merge != nil {
		return s.mergeOne(seg, record)
	}
	s.edits = append(s.edits, tree.Edit{Entry: tree.Entry{Key: seg, Value: record}, Delete: record == nil})
	if len(s.edits) < maxEdits {
		return nil
	}
	s.merge = s.f.s.repo.nodes.NewBuilder(s.f.s.ctx, s.f.s.w.Raw())
	for _, e := range s.edits {
		if err := s.mergeOne(e.Key, e.Value); err != nil {
			return err
		}
	}
	s.edits = nil
	return nil
}

// mergeOne copies the old map up to seg, and puts the new record in.
func (s *editSink) mergeOne(seg uint64, record []byte) error {
	if err := s.copyOld(seg); err != nil {
		return err
	}
	s.from = seg + 1
	if record == nil {
		return nil
	}
	return s.merge.Add(tree.Entry{Key: seg, Value: record})
}

// copyOld copies the old map's entries in [from, to).
func (s *editSink) copyOld(to uint64) error {
	to = min(to, s.cut)
	if to <= s.from {
		return nil
	}
	return s.f.s.repo.nodes.Ascend(s.f.s.ctx, s.f.old.Content, s.from, func(e tree.Entry) error {
		if e.Key >= to {
			return fs.SkipAll
		}
		return s.merge.Add(e)
	})
}

func (s *editSink) finish() (tree.Ref, error) {
	if s.merge != nil {
		if err := s.copyOld(s.cut); err != nil {
			return tree.Ref{}, err
		}
		return s.merge.Finish()
	}
	if s.f.in.Size < s.f.old.Size {
		return s.f.s.repo.nodes.ApplyBelow(s.f.s.ctx, s.f.s.w.Raw(), s.f.old.Content, s.cut, s.edits)
	}
	return s.f.s.repo.nodes.Apply(s.f.s.ctx, s.f.s.w.Raw(), s.f.old.Content, s.edits)
}
