package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"graphvol/fs"
	"graphvol/fs/browse"
	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
	"graphvol/fs/hold"
	"graphvol/index"
	"graphvol/snapshot"
)

// openServer opens the parts from the bottom up. On failure, those that are open are closed again.
func openServer(ctx context.Context, sess *hold.Session, o MountOptions, version string, log *slog.Logger) (*server, error) {
	s := &server{opts: o, log: log, sess: sess}
	if err := s.open(ctx, version); err != nil {
		return nil, errors.Join(err, s.close(ctx, false))
	}
	return s, nil
}

func (s *server) open(ctx context.Context, version string) (err error) {
	o, log, sess := s.opts, s.log, s.sess
	began := time.Now()
	opened := func(part string) {
		log.Debug("opened", "part", part, "took", time.Since(began))
		began = time.Now()
	}
	cfg, err := storeOf(o.State, filepath.Join(o.State, cacheName), log)
	if err != nil {
		return err
	}
	if s.repo, err = snapshot.Open(ctx, cfg); indexUnusable(err) {
		s.giveUpIndex(err)
	} else if err != nil {
		return err
	}
	opened("snapshots")
	tree, err := backing.Open(backing.Config{
		Root: sess.Backing(), State: o.State, Log: log, Takeover: sess.Takeover(), Stash: sess, Stashed: sess.Stashed(),
	})
	if err != nil {
		return err
	}
	opened("backing")
	if err := s.openVolume(ctx, tree); err != nil {
		return errors.Join(err, tree.Close())
	}
	opened("volume")
	err = s.openFront(ctx, version)
	opened("front")
	return err
}

// openVolume opens the volume with its index, or else with one that lasts as long as the mount: whatever has become of what graphvol keeps, the
// database gets its files.
func (s *server) openVolume(ctx context.Context, tree *backing.Tree) (err error) {
	if s.repo != nil {
		if err = s.openWithIndex(ctx, tree); !indexUnusable(err) {
			return err
		}
		s.giveUpIndex(err)
	}
	if s.spare, err = openSpare(s.opts.State, s.sess.Takeover(), s.log); err != nil {
		return err
	}
	s.vol, err = s.openCow(ctx, tree, s.spare, nil)
	return err
}

func (s *server) openWithIndex(ctx context.Context, tree *backing.Tree) (err error) {
	if err := settleUnmarked(s.opts.State, s.repo.Index()); err != nil {
		return err
	}
	if err := s.checkLost(ctx); err != nil {
		return err
	}
	newest, ok, err := s.repo.Newest()
	if err != nil {
		return err
	}
	if s.vol, err = s.openCow(ctx, tree, s.repo.Index(), s.repo.Recorded()); err != nil {
		return err
	}
	if ok {
		s.vol.SetBase(newest.ID)
	}
	s.repo.SetLive(s.vol)
	return nil
}

func (s *server) openCow(ctx context.Context, tree *backing.Tree, db *index.DB, recorded cow.Recorded) (*cow.Volume, error) {
	return cow.Open(ctx, cow.Config{
		Tree: tree, DB: db, State: s.opts.State, Log: s.log, Recorded: recorded, Takeover: s.sess.Takeover(), SettleAfter: s.opts.SettleAfter,
	})
}

// checkLost looks for snapshots that the store has and the catalogue hasn't: the index is damaged, or an older copy. What it calls changed is
// relative to another snapshot then.
func (s *server) checkLost(ctx context.Context) error {
	lost, err := s.repo.Lost(ctx)
	if err != nil || len(lost) == 0 || s.sess.Takeover() {
		return err
	}
	s.problem = fmt.Sprintf("index.db has lost %d of the snapshots in the store, so the next snapshot is a full one; to get them back unmount the volume (graphvol umount %s), then %s",
		len(lost), s.opts.Mount, rebuildOffline(s.opts.Backing, s.opts.State))
	s.log.Error(s.problem, "ids", lost)
	return cow.CountAsChanged(s.repo.Index())
}

// giveUpIndex goes on without the index.
func (s *server) giveUpIndex(err error) {
	s.noIndex = indexError(s.opts.State, adviceMounted(s.opts, err), err)
	s.problem = s.noIndex.Message
	s.log.Error(s.problem, "err", err)
	if s.repo == nil {
		return
	}
	if err := s.repo.Close(); err != nil {
		s.log.Warn("closing the index", "err", err)
	}
	s.repo = nil
}

func (s *server) openFront(ctx context.Context, version string) error {
	o := s.opts
	facts := Facts{
		Backing: o.Backing, Mount: o.Mount, Cache: o.Cache, SnapDir: o.SnapDir, Mounted: time.Now(), HolderPID: os.Getppid(),
	}
	if !s.sess.Takeover() { // else the server before has written them
		if err := WriteFacts(o.State, facts); err != nil {
			// Commands find the volume by its mount; a full state disk must not keep it from being mounted.
			s.log.Warn("the volume's facts are not up to date", "err", err)
		}
	}
	var cat browse.Catalogue = noCatalogue{s.noIndex}
	if s.repo != nil {
		cat = catalogue{s.repo}
	}
	s.browse = browse.New(cat, s.log)
	s.front = fs.New(fs.Config{Volume: s.vol, Browser: s.browse, SnapDir: o.SnapDir, Cache: fs.Cache(o.Cache), Log: s.log})
	var err error
	if s.ln, err = listen(o.State); err != nil {
		return err
	}
	if s.repo == nil {
		bare := &withoutIndex{
			state: o.State, facts: facts, version: version, started: time.Now(), epoch: s.vol.Epoch, why: s.noIndex, log: s.log,
			upgrader: upgrader{holder: s.sess, mount: o.Mount, log: s.log},
		}
		s.grpc = bare.server()
		return nil
	}
	if s.copies, err = openRemotes(&o, s.repo, s.log); err != nil {
		s.problem = cmp.Or(s.problem, s.copies.problem(ctx, err)) // the volume works without
	}
	s.svc = newService(serviceConfig{
		state: o.State, facts: facts, repo: s.repo, remotes: s.copies, log: s.log, version: version, problem: s.problem,
		timeout: o.SnapshotTimeout, stall: o.SnapshotTimeout, maxPending: o.MaxConcurrent,
		live: liveVolume{s.vol, s.front.NewFlusher(o.Mount)}, holder: s.sess, onChange: s.browse.Changed,
	})
	s.sess.BeforeStop(func() { s.svc.settle(closeBound) })
	s.grpc = newServer(s.svc, grpc.StreamInterceptor(s.svc.calls.count))
	return nil
}
