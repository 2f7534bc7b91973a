package agent

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/remote"
)

// Sync implements the API.
func (s *service) Sync(req *api.SyncRequest, stream api.Volume_SyncServer) error {
	all, err := s.remotes.declared(req.GetRemote())
	if err != nil {
		return statusOf(stream.Context(), s.log, "the copying", err)
	}
	if len(all) == 0 {
		return errNoCopies
	}
	if s.live == nil {
		err = s.syncHere(stream, all, req.GetTakeOver())
	} else {
		err = s.syncWorkers(stream, all, req)
	}
	return statusOf(stream.Context(), s.log, "the copying", err)
}

// syncHere copies in this call, one remote after the other.
func (s *service) syncHere(stream api.Volume_SyncServer, all []remote.Declared, takeOver bool) error {
	meter := newMeter(func(p *api.Progress) error { return stream.Send(&api.SyncEvent{Progress: p}) })
	var errs []error
	for _, d := range all {
		_, err := s.remotes.open(d).Sync(stream.Context(), remote.Options{
			TakeOver: takeOver, Progress: func(done, total int64) { meter.tell(&api.Progress{DoneBytes: done, TotalBytes: total}) },
		})
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.tellRemotes(stream))...)
}

// syncWorkers has the workers of a mounted volume copy.
func (s *service) syncWorkers(stream api.Volume_SyncServer, all []remote.Declared, req *api.SyncRequest) error {
	g, ctx := errgroup.WithContext(stream.Context())
	meter := newMeter(func(p *api.Progress) error { return stream.Send(&api.SyncEvent{Progress: p}) })
	for _, w := range s.remotes.workers {
		if !slices.ContainsFunc(all, func(d remote.Declared) bool { return d.Name == w.Remote().Name() }) {
			continue
		}
		if req.GetTakeOver() {
			w.TakeOver()
		}
		if !req.GetWait() {
			w.Kick()
			continue
		}
		g.Go(func() error {
			return w.Wait(ctx, func() { meter.tell(s.remotes.progress()) })
		})
	}
	err := g.Wait()
	if errors.Is(err, context.Canceled) && stream.Context().Err() == nil {
		err = refuse(codes.Aborted, "the volume is being unmounted or upgraded; what was copied stays, and copying goes on afterwards")
	}
	return errors.Join(err, s.tellRemotes(stream))
}

func (s *service) tellRemotes(stream api.Volume_SyncServer) error {
	infos, err := s.remotes.infos()
	if err != nil {
		return err
	}
	return stream.Send(&api.SyncEvent{Remotes: infos})
}
