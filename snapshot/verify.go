package snapshot

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// VerifyOptions say what verifying does.
type VerifyOptions struct {
	// ReadData: every chunk is read, decompressed and hashed, not only the trees and the packs' own lists.
	ReadData bool
	// Report gets each problem; it may be nil. It is called by one goroutine at a time.
	Report func(Problem)
	// Progress may be nil. It is called by one goroutine at a time.
	Progress func(VerifyProgress)
}

// VerifyProgress is how many bytes of stored chunks are checked. TotalBytes is 0 until that is known.
type VerifyProgress struct{ Bytes, TotalBytes int64 }

// Problem is something that Verify found. Snapshot is a name, empty if the problem isn't one of a single snapshot. Path is below
// the snapshot's root, empty if it isn't known. Err says what to do.
type Problem struct {
	Snapshot, Path string
	Err            error
}

// VerifyResult is what Verify looked at: snapshots, distinct chunks, and uncompressed bytes of those that were read.
type VerifyResult struct{ Snapshots, Chunks, Bytes int64 }

const (
	// maxBad bounds the damaged chunks that are remembered: 10 MB or so.
	maxBad = 20_000
	// verifyNodes is the size in bytes of Verify's cache of nodes.
	verifyNodes = 16 << 20
)

// Verify checks complete snapshots: that their manifests are what the catalogue says and form a chain in which only deleted ones
// are missing, that every node and chunk they need is in the store where the index says, with ReadData by reading it,
// and that the index is in order. What it reads comes from the store, not from caches or the live volume, each chunk once however many
// snapshots share it. It may run beside anything else. Problems are reported; an error means that the check
// couldn't be carried out.
func (r *Repo) Verify(ctx context.Context, snaps []index.Snapshot, opts VerifyOptions) (VerifyResult, error) {
	v := &verifier{repo: r, opts: opts, seen: newMarks(), bad: badChunks{errs: make(map[chunkstore.ID]error)}}
	v.nodes = tree.NewNodes(countingGetter{r.store, &v.bytes}, verifyNodes)
	for _, s := range snaps {
		if s.State != index.StateComplete {
			return VerifyResult{}, fmt.Errorf("verify %s, which is %s: %w", s.Name, s.State, ErrNotComplete)
		}
		if err := r.pin(s); err != nil {
			return VerifyResult{}, fmt.Errorf("verify: %w", err)
		}
		defer r.unpin(s.ID)
	}
	err := v.run(ctx, snaps)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("verify: %w", err)
	}
	return VerifyResult{
		Snapshots: int64(len(snaps)),
		Chunks:    v.seen.len(),
		Bytes:     v.bytes.Load(),
	}, err
}

// verifier is one run of Verify, in three parts: walk the trees, which reads all nodes and collects the chunks of
// data; check these, pack by pack; and if anything was damaged, walk the trees again to find out where it is needed.
type verifier struct {
	repo  *Repo
	opts  VerifyOptions
	nodes *tree.Nodes
	seen  *marks // written to by the first walk only
	bad   badChunks
	bytes atomic.Int64

	mu struct {
		sync.Mutex // held while Report or Progress runs
		progress   VerifyProgress
	}
}

func (v *verifier) run(ctx context.Context, snaps []index.Snapshot) error {
	v.checkIndex(ctx)
	if err := v.chain(ctx, snaps); err != nil {
		return err
	}
	for _, s := range snaps {
		if err := v.walkSnapshot(ctx, s); err != nil {
			return err
		}
	}
	if err := v.packs(ctx); err != nil {
		return err
	}
	return v.blame(ctx, snaps)
}

func (v *verifier) report(p Problem) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.opts.Report != nil {
		v.opts.Report(p)
	}
}

// checkIndex reports what the index finds wrong with itself, one by one.
func (v *verifier) checkIndex(ctx context.Context) {
	err := v.repo.db.Check(ctx)
	if err == nil || ctx.Err() != nil {
		return
	}
	problems := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // of errors.Join: only its first level is wanted
		problems = joined.Unwrap()
	}
	for _, p := range problems {
		v.report(Problem{Err: fmt.Errorf("%w; unmount the volume and run graphvol rebuild", p)})
	}
}

func (v *verifier) step(bytes int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.progress.Bytes += bytes
	if v.opts.Progress != nil {
		v.opts.Progress(v.mu.progress)
	}
}

// badChunks are the chunks that can't be had.
type badChunks struct {
	mu   sync.Mutex
	errs map[chunkstore.ID]error
	more int // that weren't remembered
}

func (b *badChunks) add(id chunkstore.ID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.errs[id]; !ok && len(b.errs) >= maxBad {
		b.more++
		return
	}
	b.errs[id] = err
}

func (b *badChunks) get(id chunkstore.ID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.errs[id]
}

// countingGetter counts the bytes that are read.
type countingGetter struct {
	tree.Getter
	bytes *atomic.Int64
}

func (g countingGetter) Get(ctx context.Context, id chunkstore.ID, buf []byte) ([]byte, error) {
	p, err := g.Getter.Get(ctx, id, buf)
	g.bytes.Add(int64(len(p)))
	return p, err
}
