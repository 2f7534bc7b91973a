package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Move says how the remote is to be spread from now on: in which layout, if it isn't empty, and over which targets, if there are any. What is put from now on goes there; what is there
// is moved by scrubs and rounds, one object after the other. Until nothing is left on a former target, it is one of those that are read.
func (r *Remote) Move(ctx context.Context, layout string, urls []string) error {
	if err := r.turn(ctx); err != nil { // a scrub that runs looks at the former ones
		return err
	}
	defer r.endTurn()
	r.round.Lock()
	defer r.round.Unlock()
	was := r.spec()
	spec := was
	if layout != "" {
		spec.Erasure = layout
	}
	if len(urls) > 0 {
		spec.URLs = slices.Clone(urls)
	}
	if was.Erasure == "" {
		return errors.New("the copy is whole on one target, not spread over several, so it can't be moved: name the new targets when the volume is mounted (--target, --erasure), " +
			"which begins another copy, and leave the old one out when that is up to date")
	}
	if err := CheckErasure(spec.Erasure, len(spec.URLs)); err != nil {
		return err
	}
	spec.Former = nil
	for _, url := range slices.Concat(was.URLs, was.Former) {
		if !slices.Contains(spec.URLs, url) && !slices.Contains(spec.Former, url) {
			spec.Former = append(spec.Former, url)
		}
	}
	return r.respread(spec)
}

// respread changes where the remote is. The round lock is held. First the file that says where the rest of an attached store is: with the new targets and the former ones
// everything is found, whatever was moved.
func (r *Remote) respread(spec Spec) error {
	if s, ok := r.cfg.Local.Target.(*Store); ok {
		if err := s.moved(r.cfg.Name, spec); err != nil {
			return err
		}
	}
	r.recording.Lock()
	defer r.recording.Unlock()
	st, err := readState(r.cfg.Local.Index, r.cfg.Name)
	if err != nil {
		return err
	}
	if was := st.Spec; !was.equal(spec) {
		was.Former = nil
		st.Was = append(slices.DeleteFunc(st.Was, func(o Spec) bool { return o.equal(was) || o.equal(spec) }), was)
	}
	st.Spec = spec
	if err := writeState(r.cfg.Local.Index, r.cfg.Name, &st); err != nil {
		return err
	}
	r.cfg.Spec, r.known = spec, false
	r.cfg.Log.Info("the copy is spread otherwise from now on", "layout", spec.Erasure, "targets", spec.URLs, "former", spec.Former)
	return nil
}

// finishMove forgets the former targets that have nothing any more. It is no error if that can't be known yet: the next scrub does it.
func (s *scrub) finishMove(ctx context.Context) error {
	s.Remote.round.Lock()
	defer s.Remote.round.Unlock()
	spec := s.spec()
	if len(spec.Former) == 0 {
		return nil
	}
	var left []string
	for _, url := range spec.Former {
		n, err := s.countAt(ctx, url)
		if err != nil || n > 0 {
			left = append(left, url)
			s.cfg.Log.Info("a former target of the copy still has something", "target", url, "objects", n, "err", err)
		}
	}
	if err := ctx.Err(); err != nil || len(left) == len(spec.Former) {
		return err
	}
	spec.Former = left
	return s.respread(spec)
}

// countAt counts the objects on a target.
func (s *scrub) countAt(ctx context.Context, url string) (int, error) {
	t, err := s.cfg.Opener.Dial(ctx, url)
	if err != nil {
		return 0, err
	}
	list, err := t.List(ctx, "")
	if err != nil {
		return 0, fmt.Errorf("%s: %w", url, err)
	}
	return len(list), nil
}
