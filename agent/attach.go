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

	"google.golang.org/grpc/codes"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/dial"
	"graphvol/index"
	"graphvol/remote"
	"graphvol/snapshot"
)

// Attached is what Attach has done.
type Attached struct {
	snapshot.Rebuilt
	State  string
	Volume string // the volume's id
	Head   remote.Head
	Took   time.Duration
}

// attachedName is the remote's name in the index.
const attachedName = "r1"

// cacheName is the directory in the state directory for blocks that were read from a copy.
const cacheName = "cache"

// storeOf says where a state's packs and manifests are. cacheDir is for what is read from a copy; empty: it isn't kept.
func storeOf(state, cacheDir string, log *slog.Logger) (snapshot.Config, error) {
	o := openerOf(state, log)
	o.Dial = dial.OpenThere // it is only read
	t, err := remote.OpenStore(state, cacheDir, o)
	return snapshot.Config{State: state, Log: log, Target: t}, err
}

// Attach makes a state directory, which must be empty or not be there, of a copy of a store: its snapshots can be listed, read and restored then, and a volume
// can be mounted with it. Packs are read where they are. In this order, so that one that was interrupted is nothing but a directory to be removed:
//
//  1. an index is made of the copy's lists of chunks, and of the manifests that its newest head lists
//  2. it learns what is on the copy, and counts everything as changed
//  3. the manifests are copied, and a file says that the rest is there
//  4. the index gets its name, which makes the directory a state directory
func Attach(ctx context.Context, spec remote.Spec, key KeySource, state string, progress func(done, total int64), stderr io.Writer) (res Attached, err error) {
	start := time.Now()
	if err := checkSpec(spec); err != nil {
		return res, err
	}
	if res.State, err = emptyState(state); err != nil {
		return res, err
	}
	lf, err := OpenLog(res.State, offlineLogName, stderr)
	if err != nil {
		return res, err
	}
	defer lf.Close()
	log := NewLogger(lf, slog.LevelInfo)
	t, err := openWithKey(ctx, &spec, key, openerOf(res.State, log))
	if err != nil {
		return res, statusOf(ctx, log, "opening the copy", err)
	}
	view, err := remote.OpenView(ctx, t)
	if err != nil {
		return res, statusOf(ctx, log, "reading the copy", err)
	}
	res.Volume, res.Head = view.Volume, view.Newest
	cfg := snapshot.Config{State: res.State, Log: log, Target: view}
	if res.Rebuilt, err = makeIndex(ctx, cfg, snapshot.RebuildOptions{KeepStore: true, Volume: view.Volume, Progress: progress}); err != nil {
		return res, statusOf(ctx, log, "reading the copy", errors.Join(err, removeNewIndex(res.State)))
	}
	for _, problem := range res.Problems {
		log.Warn("found while attaching", "snapshot", problem.Snapshot, "err", problem.Err)
	}
	if err := finishAttach(ctx, res.State, view, spec, log); err != nil {
		return res, statusOf(ctx, log, "attaching the copy", err)
	}
	log.Info("attached", "copy", spec.String(), "snapshots", res.Snapshots, "head", res.Head.Sequence)
	res.Took = time.Since(start)
	return res, nil
}

// openWithKey opens a copy, and leaves the key where the opener will look for it from now on.
func openWithKey(ctx context.Context, spec *remote.Spec, key KeySource, o *remote.Opener) (target.Target, error) {
	k, err := key.read()
	if err != nil {
		return nil, err
	}
	spec.Encrypt = k != nil
	with := *o
	with.Key, with.Dial = k, dial.OpenThere // a place that was mistyped must not be made
	t, err := with.Open(ctx, attachedName, *spec)
	if err == nil && k != nil {
		err = k.Write(o.KeyFile(attachedName))
	}
	return t, err
}

// checkSpec refuses what can't be a copy.
func checkSpec(spec remote.Spec) error {
	if spec.Erasure == "" && len(spec.URLs) > 1 {
		return refuse(codes.InvalidArgument, "several targets are named, but not how the copy is spread over them: add --erasure K+M, or name one")
	}
	if n, err := remote.ErasureTargets(spec.Erasure); err == nil && len(spec.URLs) < n {
		return refuse(codes.InvalidArgument, fmt.Sprintf("a copy that is spread %s has at least %d targets, and %d are named: name all of them, also those that are lost or away", spec.Erasure, n, len(spec.URLs)))
	}
	return checkCopies([]CopyOptions{{Targets: spec.URLs, Erasure: spec.Erasure}})
}

// finishAttach makes a state directory of what is in it.
func finishAttach(ctx context.Context, state string, view *remote.View, spec remote.Spec, log *slog.Logger) error {
	db, err := index.Open(filepath.Join(state, newIndexName), index.Options{Log: log})
	if err != nil {
		return err
	}
	err = errors.Join(view.Enter(ctx, db, attachedName, spec), copyManifests(ctx, state, view, db), db.Close())
	if err == nil {
		err = remote.WriteRest(state, attachedName, spec)
	}
	if err == nil {
		_, err = putIndex(state)
	}
	return err
}

// copyManifests makes the state's own store, with the manifests of the snapshots in the index.
func copyManifests(ctx context.Context, state string, view *remote.View, db *index.DB) error {
	store, err := target.OpenDir(filepath.Join(state, "store"))
	if err != nil {
		return err
	}
	all, err := db.Snapshots()
	if err != nil {
		return err
	}
	for _, s := range all {
		name := snapshot.ManifestObject(s.ID)
		p, err := target.Get(ctx, view, name, snapshot.MaxManifest)
		if err == nil {
			err = target.Put(ctx, store, name, p)
		}
		if err != nil {
			return err
		}
	}
	return view.CopyClusters(ctx, store)
}

// emptyState makes the directory, or checks that there is nothing in it.
func emptyState(dir string) (string, error) {
	state, err := Canonical(dir)
	if err != nil {
		return "", cannotUseState(dir, err)
	}
	list, err := os.ReadDir(state)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = os.Mkdir(state, 0o700)
		if errors.Is(err, os.ErrNotExist) {
			return "", refuse(codes.NotFound, fmt.Sprintf("the directory %s does not exist, so the state directory can't be made in it: make it with mkdir -p", filepath.Dir(state)))
		}
	case err == nil && len(list) > 0 && !interrupted(list):
		return "", refuse(codes.FailedPrecondition, fmt.Sprintf("%s is not empty: name a new directory, so that nothing in it is lost", state))
	}
	if err == nil {
		err = os.MkdirAll(filepath.Join(state, "log"), 0o700)
	}
	return state, cannotUseState(state, err)
}

// interrupted tells whether a directory has nothing but what an attaching has left that was interrupted.
func interrupted(list []os.DirEntry) bool {
	for _, e := range list {
		switch e.Name() {
		case "log", "keys", newIndexName, filepath.Base(index.IntentPath(newIndexName)):
		default:
			return false
		}
	}
	return true
}
