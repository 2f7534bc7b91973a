package agent

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/remote"
	"graphvol/snapshot"
)

var errNoCopies = refuse(codes.FailedPrecondition, "the volume has no copies elsewhere: name a target when it is mounted (graphvol mount --target)")

// scrubbed lists the remotes that a scrub or repair is about.
func (s *service) scrubbed(name string, limit int64) ([]remote.Declared, error) {
	if limit < 0 || limit > 0 && limit < leastRate {
		return nil, refuse(codes.InvalidArgument, "what reads less than 256KiB/s would never end: give --limit more, or 0 for no limit")
	}
	all, err := s.remotes.declared(name)
	if err == nil && len(all) == 0 {
		err = errNoCopies
	}
	return all, err
}

// Scrub implements the API.
func (s *service) Scrub(req *api.ScrubRequest, stream api.Volume_ScrubServer) error {
	all, err := s.scrubbed(req.GetRemote(), req.GetLimit())
	if err != nil {
		return statusOf(stream.Context(), s.log, "the scrub", err)
	}
	t := newScrubTold(stream, s.remotes)
	for _, d := range all {
		t.remote(stream.Context(), s.remotes.remote(d), remote.ScrubOptions{Limit: req.GetLimit()})
	}
	s.remotes.kick()
	return statusOf(stream.Context(), s.log, "the scrub", t.end(stream.Context()))
}

// Repair implements the API.
func (s *service) Repair(req *api.RepairRequest, stream api.Volume_RepairServer) error {
	err := s.repair(req, stream)
	return statusOf(stream.Context(), s.log, "the repair", err)
}

func (s *service) repair(req *api.RepairRequest, stream api.Volume_RepairServer) error {
	all, err := s.scrubbed(req.GetRemote(), req.GetLimit())
	if err != nil {
		return err
	}
	if err := s.move(stream.Context(), req, all); err != nil {
		return err
	}
	t := newScrubTold(stream, s.remotes)
	if err := t.store(stream.Context(), s.repo, all); err != nil {
		return err
	}
	for _, d := range all {
		r := s.remotes.remote(d)
		t.remote(stream.Context(), r, remote.ScrubOptions{Mend: true, Limit: req.GetLimit()})
		if last := t.results[len(t.results)-1]; last.Error == "" {
			if err := s.bringUp(stream.Context(), d.Name, r); err != nil {
				last.Error = Message(statusOf(stream.Context(), s.log, "the copying", err))
			}
		}
	}
	return t.end(stream.Context())
}

// move says how a remote is spread from now on, if that is asked for. The repair does the rest.
func (s *service) move(ctx context.Context, req *api.RepairRequest, all []remote.Declared) error {
	urls, layout := req.GetTargets(), req.GetErasure()
	if len(urls) == 0 && layout == "" {
		return nil
	}
	if len(all) > 1 {
		return refuse(codes.InvalidArgument, "the volume has several copies: say with --copy which one is to be moved")
	}
	d := all[0]
	o := CopyOptions{Targets: urls, Erasure: layout}
	if len(urls) == 0 {
		o.Targets = d.Spec.URLs
	}
	if err := checkCopies([]CopyOptions{o}); err != nil {
		return err
	}
	if err := s.remotes.remote(d).Move(ctx, layout, urls); err != nil {
		return &Error{codes.FailedPrecondition, err.Error(), err}
	}
	declared, err := s.remotes.declared(d.Name)
	copy(all, declared)
	return err
}

// bringUp does a round, and waits for its end.
func (s *service) bringUp(ctx context.Context, name string, r *remote.Remote) error {
	if w := s.remotes.worker(name); w != nil {
		return w.Wait(ctx, nil)
	}
	_, err := r.Sync(ctx, remote.Options{})
	return err
}

// scrubTold tells a client of scrubs and repairs.
type scrubTold struct {
	stream  interface{ Send(*api.ScrubEvent) error }
	remotes *remotes
	meter   *meter
	stage   string
	results []*api.ScrubResult
	needy   map[[2]string]bool // snapshots and paths that were told to need what is lost
}

func newScrubTold(stream interface{ Send(*api.ScrubEvent) error }, r *remotes) *scrubTold {
	t := &scrubTold{stream: stream, remotes: r, needy: make(map[[2]string]bool)}
	t.meter = newMeter(func(p *api.Progress) error { return stream.Send(&api.ScrubEvent{Stage: t.stage, Progress: p}) })
	return t
}

func (t *scrubTold) progress(done, total int64) {
	t.meter.tell(&api.Progress{DoneBytes: done, TotalBytes: total})
}

func (t *scrubTold) finding(f *api.ScrubFinding) {
	t.meter.send(func() error { return t.stream.Send(&api.ScrubEvent{Stage: t.stage, Finding: f}) })
}

// lost tells that a snapshot needs what is lost: once, though the store and each copy may lack it.
func (t *scrubTold) lost(ctx context.Context, p snapshot.Problem) {
	if key := [2]string{p.Snapshot, p.Path}; !t.needy[key] {
		t.needy[key] = true
	} else {
		return
	}
	t.remotes.log.ErrorContext(ctx, "a snapshot needs what is lost", "snapshot", p.Snapshot, "path", p.Path, "err", p.Err)
	t.meter.send(func() error {
		return t.stream.Send(&api.ScrubEvent{Stage: t.stage, Lost: &api.VerifyProblem{Snapshot: p.Snapshot, Path: []byte(p.Path), Message: p.Err.Error()}})
	})
}

// remote scrubs a remote. What keeps it from being read is in its result: others may be read all the same.
func (t *scrubTold) remote(ctx context.Context, r *remote.Remote, o remote.ScrubOptions) {
	t.stage = r.Name()
	o.Progress, o.Lost = t.progress, func(p snapshot.Problem) { t.lost(ctx, p) }
	o.Found = func(f remote.Finding) {
		t.finding(&api.ScrubFinding{Remote: r.Name(), Object: f.Object, Trouble: string(f.Trouble), Message: f.Err.Error(), Mended: f.Mended, Lost: f.Lost})
	}
	res, err := r.Scrub(ctx, o)
	row := &api.ScrubResult{
		Remote: r.Name(), Objects: res.Objects, Bytes: res.Bytes, Weak: int64(res.Weak), Damaged: int64(res.Damaged), Missing: int64(res.Missing),
		Mended: int64(res.Mended), Lost: int64(res.Lost), Away: res.Away,
	}
	if err != nil {
		row.Error = Message(statusOf(ctx, t.remotes.log, "the scrub", err))
	}
	t.results = append(t.results, row)
}

// store mends the volume's own store from its remotes.
func (t *scrubTold) store(ctx context.Context, repo *snapshot.Repo, all []remote.Declared) error {
	_, partly := repo.Target().(*remote.Store)
	o := snapshot.MendOptions{Partly: partly, Progress: t.progress}
	for _, d := range all {
		o.Copies = append(o.Copies, snapshot.Copy{Name: d.Name, Open: t.remotes.remote(d).Open})
	}
	row := &api.ScrubResult{}
	o.Report = func(m snapshot.Mended) {
		f := &api.ScrubFinding{Object: m.Object, Trouble: string(remote.Damaged), Mended: m.Err == nil, Lost: m.Lost()}
		if row.Damaged++; f.Mended {
			row.Mended++
			f.Message = "put back from copy " + m.From
		} else {
			f.Message = m.Err.Error()
		}
		if f.Lost {
			row.Lost++
		}
		t.finding(f)
	}
	res, err := repo.Mend(ctx, o)
	if err != nil {
		return err
	}
	row.Objects, row.Bytes = res.Objects, res.Bytes
	t.results = append(t.results, row)
	if len(res.Lost) == 0 {
		return nil
	}
	return repo.Needs(ctx, res.Lost, func(p snapshot.Problem) { t.lost(ctx, p) })
}

// end sends the results.
func (t *scrubTold) end(ctx context.Context) error {
	return errors.Join(ctx.Err(), t.stream.Send(&api.ScrubEvent{Results: t.results}))
}

// worker gives a remote's worker; nil: the volume isn't mounted.
func (r *remotes) worker(name string) *remote.Worker {
	for _, w := range r.workers {
		if w.Remote().Name() == name {
			return w
		}
	}
	return nil
}

// remote gives a remote: the one that its worker has, if there is one.
func (r *remotes) remote(d remote.Declared) *remote.Remote {
	if w := r.worker(d.Name); w != nil {
		return w.Remote()
	}
	return r.open(d)
}
