package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"graphvol/chunkstore/target"
)

var (
	// ErrNoPath says that the snapshot has nothing at a path that was asked for.
	ErrNoPath = errors.New("the snapshot has no such path")
	// ErrInTheWay says that a directory with something in it stands where the snapshot has something else, and may not be removed.
	ErrInTheWay = errors.New("a directory that isn't empty is in the way")
	// ErrProtected says that a restore would have changed a directory that it must leave alone.
	ErrProtected = errors.New("a restore must not change this directory")
)

// RestoreOptions say what to restore and where to.
type RestoreOptions struct {
	Dest     string                // an absolute path; made if it doesn't exist
	Paths    []string              // relative to the root, a directory with all below it; none: all
	Delete   bool                  // remove entries of restored directories that the snapshot doesn't have
	DryRun   bool                  // change nothing, only count; Written is an estimate where files with several names are involved
	Workers  int                   // files worked on at once; 0: twice the number of cores
	Protect  []string              // directories that are neither entered nor removed, by whatever path they are reached
	Progress func(RestoreProgress) // may be nil; called from several goroutines
	Warn     func(error)           // told, once a kind, what can't be restored for want of rights; may be nil; called from several goroutines
}

// RestoreProgress is what a restore has done so far. Totals of 0 are unknown.
type RestoreProgress struct{ Bytes, TotalBytes, Files, TotalFiles int64 }

// RestoreResult is what a restore did, or would do.
type RestoreResult struct {
	Files   int64 // regular files in place, each once however many names it has
	Bytes   int64 // the sum of their sizes
	Written int64 // bytes of content that differed and were written
	Removed int64 // entries removed that the snapshot doesn't have; not those replaced by something else
}

// Restore makes the directory Dest what the tree is, or the paths of it that are named. Owners, modes, extended attributes, ACLs,
// hard links, holes and times (but for the access time) are restored. What is there already is compared: a regular file is kept
// and only blocks that differ are written; an entry of another type is replaced, a directory with something in it only if Delete
// allows that. A file with more names than the restored ones is replaced, for it may be somebody else's too.
//
// Nothing outside of Dest is touched, whatever names the snapshot has and whatever symbolic links are below Dest. When Restore
// returns without an error, everything is on the disk.
//
// What can't be read from the snapshot, or can't be written for a reason of its own, doesn't keep the rest from being restored: the
// *RestoreError at the end tells. A file whose content is damaged is found as NAME.damaged instead of NAME, with all that
// could be read; in its damaged ranges is what the file had there before, or zeros. An earlier NAME.damaged is replaced, unless the snapshot
// has something of that name. A directory whose names can't be read isn't complete, and nothing is removed from it.
//
// After an interruption or a full disk a part is restored, and a file may have its size but not its content; running the same
// restore again does the rest.
func Restore(ctx context.Context, from Tree, opts RestoreOptions) (RestoreResult, error) {
	r := newRestorer(ctx, from, opts)
	defer r.cancel(nil)
	err := r.run()
	if err != nil {
		err = fmt.Errorf("restore to %s: %w", opts.Dest, err)
	}
	return RestoreResult{Files: r.files.Load(), Bytes: r.bytes.Load(), Written: r.written.Load(), Removed: r.removed.Load()}, err
}

// restorer is one restore, in three steps.
//
//  1. A walker goes through the tree, makes the directories, and hands files to workers. A directory gets its attributes, last of
//     all its time, when everything in it is done.
//  2. Inodes with several names, all of which are known now.
//  3. The attributes of the directories that 2 changed; sync.
type restorer struct {
	ctx    context.Context // ends with the first error that concerns everything
	cancel context.CancelCauseFunc
	from   Tree
	opts   RestoreOptions
	euid   int
	jobs   chan func()
	large  sync.Mutex    // held while a large file's pieces are begun: they were sealed one after the other, and lie so in the store
	spare  chan struct{} // tokens of goroutines that copy pieces of large files
	bufs   sync.Pool     // of *copyBuffers
	total  RestoreProgress

	root    *destDir
	guarded map[fileID]string // protected directories

	// The walker's, and of the steps after it.
	met     map[uint64]bool // directories of the snapshot
	links   map[uint64]*linkSet
	late    []*destDir     // get their attributes in step 3
	devices map[uint64]int // filesystems to sync: a descriptor for each

	files, bytes, written, removed, copied atomic.Int64

	mu struct {
		sync.Mutex
		failed RestoreError
		warned map[string]bool
	}
}

func newRestorer(ctx context.Context, from Tree, opts RestoreOptions) *restorer {
	if opts.Workers <= 0 {
		opts.Workers = 2 * runtime.NumCPU()
	}
	r := &restorer{
		from: from, opts: opts, euid: os.Geteuid(), spare: make(chan struct{}, max(1, opts.Workers/2)),
		met: make(map[uint64]bool), links: make(map[uint64]*linkSet), devices: make(map[uint64]int),
	}
	r.bufs.New = func() any { return new(copyBuffers) }
	r.mu.warned = make(map[string]bool)
	if s, ok := from.(interface{ Stats() (files, bytes int64) }); ok && len(opts.Paths) == 0 {
		r.total.TotalFiles, r.total.TotalBytes = s.Stats()
	}
	if len(opts.Paths) == 0 {
		ctx = target.ReadingOn(ctx)
	}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

func (r *restorer) run() error {
	sel, err := r.selectPaths(r.opts.Paths)
	if err != nil {
		return err
	}
	if err := r.openDest(sel); err != nil {
		return err
	}
	defer r.closeDest()
	r.met[r.from.Root()] = true
	r.parallel(func() { r.walk(r.root, r.from.Root(), sel) })
	r.parallel(r.restoreLinks)
	r.finishDirs()
	if err := context.Cause(r.ctx); err != nil {
		return err
	}
	err = r.syncDest()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.failed.Count > 0 {
		failed := r.mu.failed
		err = errors.Join(&failed, err)
	}
	return err
}

// parallel runs feed, which hands jobs to workers by submit, and waits for all.
func (r *restorer) parallel(feed func()) {
	r.jobs = make(chan func())
	var wg sync.WaitGroup
	for range r.opts.Workers {
		wg.Go(func() {
			for job := range r.jobs {
				job()
			}
		})
	}
	feed()
	close(r.jobs)
	wg.Wait()
}

func (r *restorer) submit(job func()) { r.jobs <- job }

func (r *restorer) stopped() bool { return r.ctx.Err() != nil }

// progress counts bytes that are as they should be now.
func (r *restorer) progress(n int64) {
	copied := r.copied.Add(n)
	if r.opts.Progress == nil {
		return
	}
	p := r.total
	p.Bytes, p.Files = copied, r.files.Load()
	r.opts.Progress(p)
}

// warn tells of the first of its kind that something can't be restored here.
func (r *restorer) warn(kind string, at destName, err error) {
	r.mu.Lock()
	first := !r.mu.warned[kind]
	r.mu.warned[kind] = true
	r.mu.Unlock()
	if first && r.opts.Warn != nil {
		r.opts.Warn(fmt.Errorf("%s: %s can't be restored here, nor maybe elsewhere: %w", shortened(at.path(), maxToldPath), kind, err))
	}
}

// syncDest makes what was written durable. On FUSE filesystems syncfs doesn't wait; everything there was synced one by one.
func (r *restorer) syncDest() error {
	if r.opts.DryRun {
		return nil
	}
	for _, fd := range r.devices {
		if err := unix.Syncfs(fd); err != nil {
			return fmt.Errorf("write everything to the disk: %w; run the restore again", err)
		}
	}
	return nil
}
