package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"graphvol/fs/cow"
	"graphvol/index"
	"graphvol/internal/durable"
)

const (
	// unmarkedName is a file that says, in its state directory, that the volume was changed while nobody kept a dirty map that lasts.
	unmarkedName = "index.unused"
	// spareName is the directory of the index that stands in for one that can't be used. What is in it lasts as long as the mount.
	spareName = "index.spare"
)

// openSpare makes the index that a volume works with while its own can't be used. A server that takes over goes on with the one before it.
func openSpare(state string, takeover bool, log *slog.Logger) (*index.DB, error) {
	if err := noteUnmarked(state); err != nil {
		log.Error("that the volume is used without its index could not be noted", "err", err)
	}
	dir := filepath.Join(state, spareName)
	if !takeover {
		if err := os.RemoveAll(dir); err != nil {
			log.Warn("what an earlier mount left is in the way", "err", err)
		}
	}
	db, err := openSpareIn(dir, log)
	if err != nil {
		log.Warn("the state directory can't be used", "err", err)
		if db, err = openTemporary(log); err != nil {
			return nil, fmt.Errorf("an index for the time of this mount: %w", err)
		}
	}
	return db, nil
}

// openTemporary makes an index without a name: its open files are enough.
func openTemporary(log *slog.Logger) (*index.DB, error) {
	dir, err := os.MkdirTemp("", "graphvol-index")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			log.Warn("a directory is left behind", "err", err)
		}
	}()
	return openSpareIn(dir, log)
}

func openSpareIn(dir string, log *slog.Logger) (*index.DB, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := index.Open(filepath.Join(dir, "index.db"), index.Options{Log: log})
	if err != nil {
		return nil, err
	}
	if err := cow.CountAsChanged(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func noteUnmarked(state string) error {
	if err := writeSynced(filepath.Join(state, unmarkedName), nil); err != nil {
		return err
	}
	return durable.SyncDir(state)
}

// settleUnmarked makes an index that can be used again count everything as changed, if the volume was used without it.
func settleUnmarked(state string, db *index.DB) error {
	path := filepath.Join(state, unmarkedName)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := cow.CountAsChanged(db); err != nil {
		return err
	}
	return errors.Join(os.Remove(path), os.RemoveAll(filepath.Join(state, spareName)))
}
