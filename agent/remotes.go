package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"graphvol/agent/api"
	"graphvol/chunkstore/limit"
	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/dial"
	"graphvol/index"
	"graphvol/remote"
	"graphvol/snapshot"
)

// remoteGrace is how long a remote keeps what no snapshot needs any more: somebody may be reading a snapshot there that was deleted here.
const remoteGrace = 24 * time.Hour

// remotes are a volume's remotes. Their workers run while the volume is mounted.
type remotes struct {
	state   string
	repo    *snapshot.Repo
	log     *slog.Logger
	workers []*remote.Worker

	scrubEvery time.Duration // see MountOptions
	scrubLimit int64
	upload     *limit.Limiter // of all together; nil: none
}

// openRemotes makes the index know of the remotes that a mount names, if it names any, and begins to copy to all that the index knows.
func openRemotes(o *MountOptions, repo *snapshot.Repo, log *slog.Logger) (*remotes, error) {
	r := &remotes{state: o.State, repo: repo, log: log, scrubEvery: o.ScrubEvery, scrubLimit: o.ScrubLimit}
	if o.UploadLimit > 0 {
		r.upload = limit.NewLimiter(o.UploadLimit)
	}
	var err error
	if specs := specsOf(o.Copies); len(specs) > 0 {
		err = remote.Declare(repo.Index(), specs)
	}
	var all []remote.Declared
	if err == nil {
		all, err = r.declared("")
	}
	if err != nil {
		return r, err
	}
	for _, d := range all {
		r.workers = append(r.workers, remote.NewWorker(r.open(d)))
	}
	return r, nil
}

// declared lists the remotes that the index knows of, or the one of a name.
func (r *remotes) declared(name string) ([]remote.Declared, error) {
	all, err := remote.List(r.repo.Index())
	if err != nil || name == "" {
		return all, err
	}
	for _, d := range all {
		if d.Name == name {
			return []remote.Declared{d}, nil
		}
	}
	return nil, refuse(codes.NotFound, fmt.Sprintf("the volume has no copy named %s; graphvol status lists those that it has", name))
}

// open makes a Remote; nothing is asked of its targets yet.
func (r *remotes) open(d remote.Declared) *remote.Remote {
	return remote.New(remote.Config{
		Name: d.Name, Spec: d.Spec, Opener: r.opener(), Log: r.log, Grace: remoteGrace,
		ScrubEvery: r.scrubEvery, ScrubLimit: r.scrubLimit,
		Local: remote.Local{Index: r.repo.Index(), Target: r.repo.Target(), Volume: r.repo.VolumeID(), Verify: r.repo.Store().VerifyPack,
			VerifyObject: r.repo.Store().VerifyObject, Needs: r.repo.Needs},
	})
}

// opener opens targets to which no more is sent than is allowed.
func (r *remotes) opener() *remote.Opener {
	o := openerOf(r.state, r.log)
	if r.upload == nil {
		return o
	}
	o.Dial = func(ctx context.Context, url string) (target.Target, error) {
		t, err := dial.Open(ctx, url)
		if err != nil {
			return nil, err
		}
		return limit.New(t, nil, r.upload), nil
	}
	return o
}

// openerOf opens the remotes of a state directory.
func openerOf(state string, log *slog.Logger) *remote.Opener {
	return &remote.Opener{Dial: dial.Open, Keys: filepath.Join(state, "keys"), Log: log}
}

// kick says that there may be something to copy. r may be nil.
func (r *remotes) kick() {
	if r == nil {
		return
	}
	for _, w := range r.workers {
		w.Kick()
	}
}

// close ends the workers. r may be nil.
func (r *remotes) close() {
	if r == nil {
		return
	}
	for _, w := range r.workers {
		w.Close()
	}
}

// infos tells how all remotes fare.
func (r *remotes) infos() ([]*api.RemoteInfo, error) {
	all, err := r.declared("")
	if err != nil {
		return nil, err
	}
	var infos []*api.RemoteInfo
	for _, d := range all {
		on, err := remote.On(r.repo.Index(), d.Name)
		if err != nil {
			return nil, err
		}
		info := &api.RemoteInfo{
			Name: d.Name, Urls: d.Spec.URLs, Erasure: d.Spec.Erasure, Former: d.Spec.Former, Encrypted: d.Spec.Encrypt, Sequence: d.Sequence, Snapshots: int64(len(on)),
		}
		if w := r.worker(d.Name); w != nil {
			fare(info, w.Progress())
		}
		if info.Problems = int64(d.Problems); !d.Scrubbed.IsZero() {
			info.Scrubbed = timestamppb.New(d.Scrubbed)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// progress adds up what the workers are about.
func (r *remotes) progress() *api.Progress {
	sum := &api.Progress{}
	for _, w := range r.workers {
		if p := w.Progress(); p.Phase == remote.PhaseCopying {
			sum.DoneBytes, sum.TotalBytes = sum.DoneBytes+p.Done, sum.TotalBytes+p.Total
		}
	}
	return sum
}

// fare enters how a remote fares.
func fare(info *api.RemoteInfo, p remote.Progress) {
	info.Degraded = int64(p.Degraded)
	info.Phase, info.DoneBytes, info.TotalBytes = string(p.Phase), p.Done, p.Total
	if p.Err != nil {
		info.Error = Message(p.Err)
	}
	if !p.Next.IsZero() {
		info.Next = timestamppb.New(p.Next)
	}
	if !p.Synced.IsZero() {
		info.Synced = timestamppb.New(p.Synced)
	}
}

// problem says that the index doesn't tell what the remotes have. The volume and its snapshots don't depend on it.
func (r *remotes) problem(ctx context.Context, err error) string {
	r.log.ErrorContext(ctx, "what the copies have can't be read from the index", "err", err)
	if errors.Is(err, index.ErrCorrupt) {
		return "index.db is damaged where it tells what the copies have, so they are not kept up to date: unmount the volume, then run graphvol rebuild"
	}
	return "the copies are not kept up to date: " + lastCause(ctx, err)
}

// mark enters in rows of the catalogue which remotes have them, as far as the index tells.
func (r *remotes) mark(ctx context.Context, rows []*api.SnapshotInfo) {
	all, err := r.declared("")
	for _, d := range all {
		var on map[string]bool
		if on, err = remote.On(r.repo.Index(), d.Name); err != nil {
			break
		}
		for _, row := range rows {
			if on[row.GetId()] {
				row.Remotes = append(row.Remotes, d.Name)
			}
		}
	}
	if err != nil {
		r.problem(ctx, err)
	}
}
