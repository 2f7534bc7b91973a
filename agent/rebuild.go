package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"graphvol/fs/cow"
	"graphvol/index"
	"graphvol/internal/durable"
	"graphvol/snapshot"
)

// Rebuilt is what Rebuild has done.
type Rebuilt struct {
	snapshot.Rebuilt
	State    string
	OldIndex string // where the index that was there is kept; empty: there was none
	Took     time.Duration
}

// newIndexName is the index that is being made. It is thrown away if it wasn't finished.
const newIndexName = "index.rebuild.db"

// Rebuild makes a new index for a volume that isn't mounted from what is in its store, and puts it in the old one's place. In this order,
// so that it can be killed at any point and run again:
//
//  1. the new index is made beside the old one, durably, and counts everything as changed
//  2. the old one gets a second name, under which it stays
//  3. the new one is renamed to the index's name
//  4. manifests of no use are moved to store/damaged
//
// The intents stay as they are: they can only say too much. So do epochs that were left, whose changes are part of everything.
func Rebuild(ctx context.Context, p Place, opts snapshot.RebuildOptions, stderr io.Writer) (Rebuilt, error) {
	res, start := Rebuilt{State: p.State}, time.Now()
	if p.Mounted() {
		return res, refuse(codes.FailedPrecondition, fmt.Sprintf("the volume is mounted at %s: unmount it first (graphvol umount %s)", p.Mount.Point, p.Mount.Point))
	}
	if !IsState(p.State) && !hasStore(p.State) {
		return res, fmt.Errorf("%w: there is nothing in %s that an index could be made of", ErrNoVolume, p.State)
	}
	w := stderr
	if lf, err := OpenLog(p.State, offlineLogName, stderr); err == nil {
		defer lf.Close()
		w = lf
	}
	log := NewLogger(w, slog.LevelInfo)
	cfg, err := storeOf(p.State, "", log)
	if err != nil {
		return res, statusOf(ctx, log, "rebuilding the index", err)
	}
	if opts.Old, err = snapshot.ReadOldCatalogue(cfg); err != nil {
		return res, statusOf(ctx, log, "rebuilding the index", err)
	}
	release, err := lockState(p.State)
	if err != nil {
		return res, err
	}
	defer release()
	if res.Rebuilt, err = makeIndex(ctx, cfg, opts); err != nil {
		return res, statusOf(ctx, log, "rebuilding the index", errors.Join(err, removeNewIndex(p.State)))
	}
	for _, problem := range res.Problems {
		log.Warn("found while rebuilding the index", "snapshot", problem.Snapshot, "err", problem.Err)
	}
	if res.OldIndex, err = putIndex(p.State); err != nil {
		return res, statusOf(ctx, log, "putting the new index in place", err)
	}
	log.Info("the index was rebuilt", "snapshots", res.Snapshots, "old", res.OldIndex)
	err = errors.Join(snapshot.SetAside(ctx, cfg, res.Aside),
		ignoreMissing(os.Remove(filepath.Join(p.State, unmarkedName))), os.RemoveAll(filepath.Join(p.State, spareName)))
	res.Took = time.Since(start)
	return res, statusOf(ctx, log, "the index is rebuilt; tidying up", err)
}

// lockState keeps other rebuilds and everybody who uses the index away.
func lockState(state string) (release func(), err error) {
	var held []*os.File
	release = func() {
		for _, f := range held {
			f.Close()
		}
	}
	for _, path := range []string{state, filepath.Join(state, snapshot.IndexName)} {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			held = append(held, f)
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = &Error{codes.Aborted, index.ErrInUse.Error(), err}
		}
		if err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

// makeIndex makes the new index beside the old one.
func makeIndex(ctx context.Context, cfg snapshot.Config, opts snapshot.RebuildOptions) (res snapshot.Rebuilt, err error) {
	if err := removeNewIndex(cfg.State); err != nil {
		return res, err
	}
	path := filepath.Join(cfg.State, newIndexName)
	if res, err = snapshot.Rebuild(ctx, cfg, path, opts); err != nil {
		return res, err
	}
	db, err := index.Open(path, index.Options{Log: cfg.Log})
	if err != nil {
		return res, err
	}
	return res, errors.Join(cow.CountAsChanged(db), db.Check(ctx), db.Close())
}

// removeNewIndex removes what a rebuild that was interrupted has left.
func removeNewIndex(state string) error {
	path := filepath.Join(state, newIndexName)
	return errors.Join(ignoreMissing(os.Remove(path)), ignoreMissing(os.Remove(index.IntentPath(path))))
}

// putIndex puts the new index in the old one's place, and returns where that is kept. There is an index at any moment, if there was one.
func putIndex(state string) (old string, err error) {
	path := filepath.Join(state, snapshot.IndexName)
	for n := 1; ; n++ {
		old = fmt.Sprintf("%s.broken-%d", path, n)
		if err = os.Link(path, old); !errors.Is(err, os.ErrExist) {
			break
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		old, err = "", nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP): // a filesystem without hard links
		err = os.Rename(path, old)
	}
	if err == nil {
		err = os.Rename(filepath.Join(state, newIndexName), path)
	}
	return old, errors.Join(err, removeNewIndex(state), durable.SyncDir(state))
}
