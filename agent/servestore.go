package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"graphvol/chunkstore/blockcache"
	"graphvol/chunkstore/crypt"
	"graphvol/chunkstore/target/dial"
	"graphvol/fs"
	"graphvol/fs/browse"
	"graphvol/fs/hold"
	"graphvol/remote"
	"graphvol/snapshot"
)

// metaSeenHead is the index's key for the number of the newest head that was seen.
const metaSeenHead = "store/seen-head"

// storeServer is a mounted store.
type storeServer struct {
	opts   StoreOptions
	log    *slog.Logger
	file   lateLog
	tell   func(StoreEvent)
	moved  func(cache string) error // called when the cache is known; nil: not at all
	cache  string                   // empty: not known yet
	lock   *os.File                 // holds the cache
	spec   remote.Spec
	outage outage
	copy   *remote.Copy
	repo   *snapshot.Repo
	source *storeSource
	browse *browse.FS
	ln     net.Listener
	grpc   *grpc.Server
}

// ServeStore mounts a copy of a store, and serves until it is unmounted or ctx ends. tell gets how far it is before it serves, and that it does. In this order:
//
//  1. the copy is opened, which tells whose it is, and with that the cache directory
//  2. the index is made of the packs' lists, or brought up to date
//  3. commands are answered
//  4. the kernel is
func ServeStore(ctx context.Context, o StoreOptions, key *crypt.KeyFile, version string, tell func(StoreEvent), moved func(cache string) error) (err error) {
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	debug.SetMemoryLimit(memoryTarget)
	s := &storeServer{opts: o, tell: tell, moved: moved, spec: o.spec(key != nil)}
	s.log = NewLogger(&s.file, slog.LevelInfo)
	s.outage.log = s.log
	defer func() {
		if errors.Is(err, hold.ErrLeft) {
			err = nil // reads may be running: the end of the process closes all
			return
		}
		if cerr := s.close(); err == nil { // what comes after it is no news
			err = cerr
		}
	}()
	if err := s.open(ctx, key, version); err != nil {
		return statusOf(ctx, s.log, "mounting the store", err)
	}
	return s.serve(ctx)
}

func (s *storeServer) open(ctx context.Context, key *crypt.KeyFile, version string) (err error) {
	open := func(store string) (blockcache.Options, error) { return s.openCache(ctx, store) }
	opener := &remote.Opener{Dial: dial.OpenThere, Key: key, Log: s.log}
	s.copy, err = opener.OpenCopy(ctx, s.spec, remote.CopyOptions{Cache: open, Watch: s.outage.saw})
	if err != nil {
		return err
	}
	if err := s.openIndex(ctx); err != nil {
		return err
	}
	s.source = newStoreSource(s)
	if err := s.source.update(ctx); err != nil {
		return err
	}
	s.browse = browse.New(s.source, s.log)
	s.source.changed = s.browse.Changed
	if s.ln, err = listen(s.cache); err != nil {
		return err
	}
	s.grpc = newServer(newStoreService(s, version))
	return nil
}

// openIndex opens the index that an earlier mount has left, or makes one. One that is damaged is thrown away: it has nothing of its own.
func (s *storeServer) openIndex(ctx context.Context) (err error) {
	cfg := snapshot.Config{State: filepath.Join(s.cache, storeIndexName), Log: s.log, Target: s.copy}
	if _, err := os.Stat(filepath.Join(cfg.State, snapshot.IndexName)); err == nil {
		s.repo, err = snapshot.Open(ctx, cfg)
		if !indexUnusable(err) {
			return errors.Join(err, s.checkSeen())
		}
		s.log.Warn("the index is made anew", "err", err)
		if err := errors.Join(os.RemoveAll(cfg.State), os.Mkdir(cfg.State, 0o700)); err != nil {
			return cannotUseCache(s.cache, err)
		}
	}
	res, err := makeIndex(ctx, cfg, snapshot.RebuildOptions{KeepStore: true, Volume: s.copy.Volume(), Progress: func(done, total int64) {
		s.tell(StoreEvent{Done: done, Total: total})
	}})
	if err != nil {
		return errors.Join(err, removeNewIndex(cfg.State))
	}
	for _, problem := range res.Problems {
		s.log.Warn("found while reading the copy", "snapshot", problem.Snapshot, "err", problem.Err)
	}
	if _, err = putIndex(cfg.State); err != nil {
		return cannotUseCache(s.cache, err)
	}
	s.repo, err = snapshot.Open(ctx, cfg)
	return err
}

// checkSeen refuses a copy that was rolled back since it was last mounted.
func (s *storeServer) checkSeen() error {
	if s.repo == nil {
		return nil
	}
	p, err := s.repo.Index().Meta(metaSeenHead)
	if err != nil || len(p) != 8 {
		return err
	}
	if err := s.copy.CheckSeen(binary.BigEndian.Uint64(p)); err != nil {
		return &Error{codes.DataLoss, fmt.Sprintf("%v; to see what it has all the same, name another --cache-dir", err), err}
	}
	return nil
}

func (s *storeServer) serve(ctx context.Context) error {
	go func() {
		if err := s.grpc.Serve(s.ln); err != nil {
			s.log.Error("the socket is not served any more", "err", err)
		}
	}()
	front := browse.NewAlone(s.browse, s.source)
	d := hold.Direct{Mount: s.opts.Mount, Source: s.cache, AllowOther: s.opts.AllowOther, Log: s.log}
	err := hold.ServeDirect(ctx, d, front, fs.MountOptions(fs.Options{Cache: fs.WriteThrough}), func() {
		tune(s.opts.Mount, s.log)
		s.log.Info("mounted", "copy", s.spec.String(), "mount", s.opts.Mount, "head", s.copy.Newest().Sequence)
		s.tell(StoreEvent{Mounted: s.mounted()})
	})
	s.log.Info("the server ends", "err", err)
	if err != nil && !errors.Is(err, hold.ErrLeft) {
		return mountError(err)
	}
	return err
}

func (s *storeServer) mounted() *StoreMounted {
	h := s.copy.Newest()
	return &StoreMounted{
		Mount: s.opts.Mount, Cache: s.cache, Volume: s.copy.Volume(), Sequence: h.Sequence, Snapshots: h.Snapshots, Server: os.Getpid(),
	}
}

// close closes what is open, from the top down.
func (s *storeServer) close() (err error) {
	if s.grpc != nil {
		s.grpc.Stop()
	}
	if s.ln != nil {
		if err = s.ln.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	if s.source != nil {
		s.source.close()
	}
	if s.browse != nil {
		s.browse.Close()
	}
	if s.repo != nil {
		err = errors.Join(err, s.repo.Close())
	}
	if lf := s.file.f.Load(); lf != nil {
		err = errors.Join(err, lf.Close())
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// lateLog is a log whose file is known later. What comes before is dropped: it is told as an error.
type lateLog struct{ f atomic.Pointer[LogFile] }

// Write writes a line.
func (l *lateLog) Write(p []byte) (int, error) {
	if f := l.f.Load(); f != nil {
		return f.Write(p)
	}
	return len(p), nil
}
