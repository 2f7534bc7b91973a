package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"graphvol/chunkstore/blockcache"
	"graphvol/fs/hold"
)

// Names in a mounted store's cache directory; log, socket and holder.json are as in a state directory.
const (
	storeIndexName  = "index"  // a directory: as a state directory it has an index only
	storeBlocksName = "blocks" // parts of packs that were read
)

// isStoreCache reports whether the directory is a mounted store's cache.
func isStoreCache(dir string) bool {
	st, err := os.Stat(filepath.Join(dir, storeIndexName))
	return err == nil && st.IsDir()
}

// cacheWait is how long a mount waits for the server of an earlier one, which has unmounted, or was killed, and is about to end.
const cacheWait = 5 * time.Second

// openCache makes the directory of the store with this id, and keeps other processes from it.
func (s *storeServer) openCache(ctx context.Context, store string) (o blockcache.Options, err error) {
	s.cache = filepath.Join(s.opts.CacheDir, filepath.Base(store))
	err = os.MkdirAll(s.cache, 0o700)
	if err == nil {
		err = os.Chmod(s.cache, 0o700)
	}
	if err == nil {
		s.lock, err = os.Open(s.cache)
	}
	if err != nil {
		return o, cannotUseCache(s.cache, err)
	}
	if err := lockCache(ctx, s.lock, cacheWait); err != nil {
		return o, err
	}
	lf, err := OpenLog(s.cache, agentLogName, os.Stderr)
	if err == nil {
		s.file.f.Store(lf)
		err = os.MkdirAll(filepath.Join(s.cache, storeIndexName), 0o700)
	}
	if err == nil && s.moved != nil {
		err = s.moved(s.cache)
	}
	return blockcache.Options{Dir: filepath.Join(s.cache, storeBlocksName), Disk: s.opts.CacheSize}, cannotUseCache(s.cache, err)
}

// lockCache locks a cache directory. It waits for a process that uses it without a mount; one with a mount is named at once.
func lockCache(ctx context.Context, dir *os.File, wait time.Duration) error {
	pause := &backoff.ExponentialBackOff{InitialInterval: 5 * time.Millisecond, Multiplier: 1.5, MaxInterval: 200 * time.Millisecond}
	_, err := backoff.Retry(ctx, func() (none struct{}, err error) {
		if err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return none, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return none, backoff.Permanent(cannotUseCache(dir.Name(), err))
		}
		if point := storeMountOf(dir.Name()); point != "" {
			return none, backoff.Permanent(cacheInUse(dir.Name(), "by the mount at "+point, err))
		}
		return none, cacheInUse(dir.Name(), "by another process", err)
	}, backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(wait))
	return err
}

func cacheInUse(cache, by string, err error) error {
	return &Error{codes.FailedPrecondition, fmt.Sprintf("the copy's cache %s is used %s: use that, or name another place with --cache-dir", cache, by), err}
}

func cannotUseCache(dir string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{codes.FailedPrecondition, fmt.Sprintf("the cache directory %s can't be used (%v): choose another with --cache-dir", dir, err), err}
}

// storeMountOf tells where the store with this cache is mounted; empty: nowhere that this process sees.
func storeMountOf(cache string) string {
	mounts, err := hold.Volumes()
	for _, m := range mounts {
		if err == nil && m.Source == cache {
			return m.Point
		}
	}
	return ""
}
