package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot"
)

// settle mends an object with which something is wrong, or notes it for the next round. No round runs meanwhile; one may have been the cause, so what seems to be gone
// is looked at once more.
func (s *scrub) settle(ctx context.Context, name string, trouble Trouble, cause error) error {
	s.Remote.round.Lock()
	defer s.Remote.round.Unlock()
	row, known, err := s.row(name)
	if err != nil {
		return err
	}
	if trouble == Damaged || trouble == Missing {
		if trouble, cause, err = s.check(ctx, name); err != nil {
			return err
		}
	}
	if rowed(name) && !known {
		return s.stray(name, trouble)
	}
	f := Finding{Object: name, Trouble: trouble, Err: cause}
	switch {
	case trouble == "":
		return nil
	case trouble == Weak:
		err = s.strengthen(ctx, &f, row)
	case rowed(name):
		err = s.replace(ctx, &f, row)
	default:
		err = s.renew(ctx, &f)
	}
	if err == nil && f.Trouble != "" {
		s.tell(f)
	}
	return err
}

// tell counts a finding.
func (s *scrub) tell(f Finding) {
	switch f.Trouble {
	case Weak:
		s.res.Weak++
	case Damaged:
		s.res.Damaged++
	case Missing:
		s.res.Missing++
	}
	if f.Mended {
		s.res.Mended++
	} else {
		s.record.Found++
	}
	if f.Lost {
		s.res.Lost++
	}
	level := slog.LevelError
	if f.Mended {
		level = slog.LevelWarn
	}
	s.cfg.Log.Log(context.Background(), level, "an object of the copy isn't as it should be", "object", f.Object, "trouble", string(f.Trouble), "err", f.Err, "mended", f.Mended, "lost", f.Lost)
	if s.opts.Found != nil {
		s.opts.Found(f)
	}
}

// stray enters in the index what it doesn't know, such as a pack that was put by a process that died: the next round removes what nothing needs. What is needed and isn't whole
// is put again by rounds anyway, and so is a manifest: its row says that a head lists it.
func (s *scrub) stray(name string, trouble Trouble) error {
	needed := false
	var err error
	if id, ok := chunkstore.ParsePackObject(name); ok {
		needed, err = s.needed(id)
		needed = needed && trouble == Damaged
	} else {
		_, needed, err = s.catalogued(name)
	}
	if needed || err != nil || trouble == Missing {
		return err
	}
	return s.note(index.RemoteObject{Name: name, Size: s.known[name], Degraded: trouble == Weak})
}

func (s *scrub) note(o index.RemoteObject) error {
	return s.cfg.Local.Index.SetRemoteObjects(s.cfg.Name, []index.RemoteObject{o}, nil)
}

func (s *scrub) forget(name string) error {
	return s.cfg.Local.Index.SetRemoteObjects(s.cfg.Name, nil, []string{name})
}

// strengthen puts what an object lacks. Small ones that the index has no row of, as heads are, at once: no round would look for them.
func (s *scrub) strengthen(ctx context.Context, f *Finding, row index.RemoteObject) error {
	if s.opts.Mend || !rowed(f.Object) {
		err := s.base.(repairer).Repair(ctx, f.Object) // only spread objects are weak
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !rowed(f.Object) && errors.Is(err, fs.ErrNotExist) {
			f.Trouble = "" // a round has removed it
			return nil
		}
		if f.Mended = err == nil; err != nil {
			f.Err = err
		}
	}
	if row.Degraded = !f.Mended; !rowed(f.Object) {
		return nil
	}
	return s.note(row)
}

// replace puts an object again that is gone, or has the next round do so, if the store has it.
func (s *scrub) replace(ctx context.Context, f *Finding, row index.RemoteObject) error {
	needed, err := s.whole(ctx, f)
	switch {
	case err != nil:
		return err
	case !needed:
		f.Trouble = "" // it would have been removed
		return s.forget(f.Object)
	case f.Lost:
		return nil
	case !s.opts.Mend:
		return s.forget(f.Object)
	}
	src, err := s.cfg.Local.Target.Open(ctx, f.Object)
	if err != nil {
		return err
	}
	defer src.Close()
	row.Size = src.Size()
	row.Degraded, err = stored(s.content.Put(ctx, f.Object, io.NewSectionReader(target.Reader(ctx, src), 0, src.Size()), target.PutOptions{}))
	if err != nil {
		return errors.Join(fmt.Errorf("putting %s: %w", f.Object, err), s.forget(f.Object))
	}
	f.Mended = true
	return s.note(row)
}

// needed tells whether the index has a pack.
func (s *scrub) needed(id chunkstore.PackID) (bool, error) {
	ids, err := s.cfg.Local.Index.PackIDs()
	return slices.Contains(ids, id), err
}

// whole tells whether an object is needed, and makes it lost if the store doesn't have it whole.
func (s *scrub) whole(ctx context.Context, f *Finding) (needed bool, err error) {
	if id, ok := chunkstore.ParsePackObject(f.Object); ok {
		if needed, err = s.needed(id); !needed || err != nil {
			return needed, err
		}
		damage := s.cfg.Local.Verify(ctx, id)
		if damage != nil && passing(damage) {
			return true, damage
		}
		if f.Lost = damage != nil; f.Lost {
			s.lost[id] = damage
		}
		return true, nil
	}
	snap, needed, err := s.catalogued(f.Object)
	if !needed || err != nil {
		return needed, err
	}
	p, err := target.Get(ctx, s.cfg.Local.Target, f.Object, snapshot.MaxManifest)
	if err != nil && passing(err) {
		return true, err
	}
	if f.Lost = err != nil || hashHex(p) != snap.ManifestSHA256; f.Lost && s.opts.Lost != nil {
		s.opts.Lost(snapshot.Problem{Snapshot: snap.Name, Err: errors.New("its manifest is lost; the data isn't affected")})
	}
	return true, nil
}

// catalogued gives the snapshot whose manifest an object is, if the catalogue has it.
func (s *scrub) catalogued(name string) (snap index.Snapshot, ok bool, err error) {
	all, err := s.cfg.Local.Index.Snapshots()
	for _, snap := range all {
		if snapshot.ManifestObject(snap.ID) == name {
			return snap, true, err
		}
	}
	return snap, false, err
}

// renew writes anew what only this state directory can know.
func (s *scrub) renew(ctx context.Context, f *Finding) (err error) {
	st, err := readState(s.cfg.Local.Index, s.cfg.Name)
	if err != nil {
		return err
	}
	s.state.Head, s.state.Ours = st.Head, st.Ours // a round may have put another one
	n, isHead := headSequence(f.Object)
	newest := s.state.Head.Sequence
	switch {
	case isHead && (n > newest || n < newest && f.Trouble == Missing):
		f.Trouble = "" // the next round finds out whose it is; a round has removed it
	case isHead && n < newest && s.opts.Mend:
		err = s.content.Remove(ctx, f.Object)
		f.Mended = err == nil
	case isHead && n < newest:
	case isHead && f.Trouble == Missing:
		f.Err = fmt.Errorf("%w; somebody has removed it, or put an older state in its place: if that was meant, run graphvol sync VOLUME --take-over", f.Err)
	case isHead && s.opts.Mend && s.state.Ours && !errors.Is(f.Err, ErrChanged):
		err = s.renewHead(ctx)
		f.Mended = err == nil
	case f.Object == storeName && s.opts.Mend && s.head.Store == s.state.Store:
		err = s.renewStoreFile(ctx)
		f.Mended = err == nil
	case isCluster(f.Object) && f.Trouble == Missing:
		f.Trouble = "" // a round has removed it
	case isCluster(f.Object) && s.opts.Mend:
		err = copyCluster(ctx, s.cfg.Local.Target, s.content, f.Object)
		f.Mended = err == nil
	case strings.HasPrefix(f.Object, "keys/"):
		f.Err = fmt.Errorf("%w; remove it, and add the key again (graphvol key remove, graphvol key add)", f.Err)
	}
	return err
}

// renewHead puts a head after one that is damaged, which lists what the index says is there.
func (s *scrub) renewHead(ctx context.Context) error {
	on, err := On(s.cfg.Local.Index, s.cfg.Name)
	if err != nil {
		return err
	}
	all, err := s.cfg.Local.Index.Snapshots()
	if err != nil {
		return err
	}
	var snaps []index.Snapshot
	for _, snap := range all {
		if on[snap.ID] && snap.State == index.StateComplete {
			snaps = append(snaps, snap)
		}
	}
	r := s.Remote
	if r.writer, err = writerID(s.cfg.Local.Index); err != nil {
		return err
	}
	r.known = false // and reads it when the next round begins
	old := headName(s.state.Head.Sequence)
	if s.state, err = r.putHeadAfter(ctx, s.content, s.state, snaps); err != nil {
		return err
	}
	return s.content.Remove(ctx, old)
}

// renewStoreFile puts store.json, after the head has proved that this is the copy.
func (s *scrub) renewStoreFile(ctx context.Context) error {
	p, err := s.storeFileOf(&s.state).encode()
	if err != nil {
		return err
	}
	_, err = stored(target.Put(ctx, s.base, storeName, p))
	return err
}

// removeIncomplete removes what Puts that failed have left. Of what the index knows nothing is removed.
func (s *scrub) removeIncomplete(ctx context.Context) error {
	spread, ok := s.base.(checker)
	if !ok {
		return nil
	}
	s.Remote.round.Lock()
	defer s.Remote.round.Unlock()
	names, err := spread.Incomplete(ctx, chunkstore.PackPrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, known, err := s.row(name)
		if err != nil || known {
			return err
		}
		if err := s.base.Remove(ctx, name); err != nil {
			s.cfg.Log.Warn("parts of an object that was never whole are left", "object", name, "err", err)
		}
	}
	return nil
}

// tellLost tells which snapshots need what is lost.
func (s *scrub) tellLost(ctx context.Context) error {
	if len(s.lost) == 0 || s.opts.Lost == nil {
		return nil
	}
	return s.cfg.Local.Needs(ctx, s.lost, s.opts.Lost)
}
