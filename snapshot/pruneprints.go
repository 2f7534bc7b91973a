package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"graphvol/snapshot/tree"
)

// prunePrints removes fingerprints of inodes that the newest snapshot doesn't have: a failed seal left them, or they could not be
// removed with their inode. Beside a running seal, which may be making some, it does nothing.
func (r *Repo) prunePrints(ctx context.Context) error {
	if !r.prints.sealing.TryLock() {
		return nil
	}
	defer r.prints.sealing.Unlock()
	list, err := os.ReadDir(r.prints.path)
	if err != nil || len(list) == 0 {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var root tree.Root
	snap, ok, err := r.Newest()
	if err == nil && ok {
		root, err = r.readRoot(ctx, snap)
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		keep, err := r.needsPrints(ctx, root, e.Name())
		if err != nil {
			return err
		}
		if keep {
			continue
		}
		if err := os.Remove(filepath.Join(r.prints.path, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// needsPrints tells whether a file of that name in the directory of fingerprints is one of a snapshot's inodes.
func (r *Repo) needsPrints(ctx context.Context, root tree.Root, name string) (bool, error) {
	ino, ok := r.prints.inode(name)
	if !ok {
		return false, nil
	}
	p, ok, err := r.nodes.Get(ctx, root.Inodes, ino, "")
	if err != nil || !ok {
		return false, err
	}
	rec, err := tree.DecodeRecord(ino, p)
	if err != nil {
		return false, err
	}
	return r.prints.has(&rec.Inode), nil
}
