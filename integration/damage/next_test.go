package damage

import (
	"context"
	"errors"
	"fmt"
	"os"

	"graphvol/fs/cow"
	"graphvol/fs/cow/backing"
	"graphvol/index"
	"graphvol/snapshot"
)

// takeNext opens the volume as a mount does, but without a kernel in front, takes a snapshot and compares it with the backing directory. unable
// says why there is none. err is a breach.
func takeNext(ctx context.Context, state, back string, want model) (unable, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	repo, err := snapshot.Open(ctx, snapshot.Config{State: state, Log: quiet(), Workers: 1})
	if err != nil {
		return err, nil
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	vol, err := openVolume(ctx, repo, state, back)
	if err != nil {
		return err, nil
	}
	defer func() { vol.Close(ctx) }()
	s, err := seal(ctx, repo, vol)
	if err != nil {
		return err, nil
	}
	unreadable, err := compare(ctx, repo, s, want)
	if err == nil && unreadable != nil {
		err = fmt.Errorf("can't be read: %w", unreadable)
	}
	if err != nil {
		err = fmt.Errorf("the next snapshot (%s): %w", s.Kind, err)
	}
	return nil, err
}

func openVolume(ctx context.Context, repo *snapshot.Repo, state, back string) (*cow.Volume, error) {
	lost, err := repo.Lost(ctx)
	if err == nil && len(lost) > 0 { // as the agent does
		err = cow.CountAsChanged(repo.Index())
	}
	if err != nil {
		return nil, err
	}
	root, err := os.Open(back)
	if err != nil {
		return nil, err
	}
	tree, err := backing.Open(backing.Config{Root: root, State: state, Log: quiet()})
	if err != nil {
		return nil, err
	}
	vol, err := cow.Open(ctx, cow.Config{Tree: tree, DB: repo.Index(), State: state, Log: quiet(), Recorded: repo.Recorded()})
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	repo.SetLive(vol)
	return vol, nil
}

func seal(ctx context.Context, repo *snapshot.Repo, vol *cow.Volume) (index.Snapshot, error) {
	src, _, err := vol.Barrier(ctx)
	if err != nil {
		return index.Snapshot{}, err
	}
	snap, err := repo.Begin("next", snapshot.BeginOptions{Epoch: src.Epoch()})
	if err != nil {
		src.Release(false)
		return snap, err
	}
	src.SetID(snap.ID)
	return repo.Seal(ctx, snap, src, nil)
}

// rebuild does what graphvol rebuild does with a state.
func rebuild(ctx context.Context, state string, readData bool) (snapshot.Rebuilt, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cfg, path := snapshot.Config{State: state, Log: quiet()}, state+"/index.rebuild.db"
	old, err := snapshot.ReadOldCatalogue(cfg)
	if err != nil {
		return snapshot.Rebuilt{}, err
	}
	res, err := snapshot.Rebuild(ctx, cfg, path, snapshot.RebuildOptions{ReadData: readData, Old: old})
	if err != nil {
		return res, err
	}
	db, err := index.Open(path, index.Options{Log: quiet()})
	if err != nil {
		return res, err
	}
	err = errors.Join(cow.CountAsChanged(db), db.Close(), os.Rename(path, state+"/index.db"))
	return res, errors.Join(err, snapshot.SetAside(ctx, cfg, res.Aside))
}
