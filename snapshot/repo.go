package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// Sizes of a Repo's caches, in bytes.
const (
	defaultCache = 64 << 20
	nodeCache    = 32 << 20
)

// IndexName is the index in the state directory.
const IndexName = "index.db"

// metaVolume is the index's key for the volume's id.
const metaVolume = "snapshot/volume-id"

// Config says where a Repo is and how it works.
type Config struct {
	State   string       // the state directory, which must exist
	Log     *slog.Logger // nil: nothing is logged
	Workers int          // goroutines that read and hash for a seal; 0: a default for the machine
	Node    string       // this node's name in manifests; empty: the host's
	// CacheBytes bounds the decompressed chunks kept for readers; 0: 64 MiB.
	CacheBytes int
	// Target holds packs and manifests; nil: the directory State/store.
	Target target.Local
}

func (c *Config) setDefaults() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Workers <= 0 {
		c.Workers = min(2*runtime.NumCPU(), 8) // more than cores: some wait for the disk
	}
	if c.CacheBytes <= 0 {
		c.CacheBytes = defaultCache
	}
	if c.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("this node's name: %w", err)
		}
		c.Node = name
	}
	return nil
}

// Repo is a volume's snapshots: catalogue, chunks and manifests. It is safe for concurrent use.
type Repo struct {
	cfg    Config
	log    *slog.Logger
	db     *index.DB
	target target.Local
	store  *chunkstore.Store
	nodes  *tree.Nodes
	chunks *chunkCache
	proven *verifiedSet
	ahead  *readAhead
	volume string
	turns  turns
	prints printDir
	upkeep upkeep

	mu struct {
		sync.Mutex
		live   Live
		newest *base          // the newest complete snapshot; nil if none, or not loaded yet
		pins   map[string]pin // snapshots that a reader or a seal needs, by id
	}
}

// base is the snapshot that the live volume is compared with.
type base struct {
	id   string
	root tree.Root
}

// Open opens the snapshots of a state directory. No mount is needed. Snapshots that are pending, because their process has ended,
// become failed ones. Errors of note: index.ErrInUse, index.ErrNewerFormat, index.ErrCorrupt, ErrIndexLost,
// chunkstore.ErrNewerFormat.
func Open(ctx context.Context, cfg Config) (*Repo, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	path := filepath.Join(cfg.State, IndexName)
	if err := checkIndex(ctx, cfg, path); err != nil {
		return nil, err
	}
	db, err := index.Open(path, index.Options{Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	r, err := open(ctx, cfg, db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return r, nil
}

func open(ctx context.Context, cfg Config, db *index.DB) (*Repo, error) {
	r := &Repo{cfg: cfg, log: cfg.Log, db: db}
	var err error
	if r.target, err = openTarget(cfg); err != nil {
		return nil, err
	}
	if r.volume, err = r.volumeID(ctx); err != nil {
		return nil, err
	}
	if r.store, err = chunkstore.Open(ctx, r.target, db, chunkstore.Options{Log: cfg.Log}); err != nil {
		return nil, err
	}
	r.prints = printDir{path: filepath.Join(cfg.State, "fingerprints"), log: r.log, smallFile: smallFile}
	r.nodes = tree.NewNodes(r.store, nodeCache)
	r.chunks = newChunkCache(r.store, cfg.CacheBytes)
	r.proven = newVerifiedSet(verifiedLimit)
	r.ahead = newReadAhead()
	r.mu.pins = make(map[string]pin)
	if err := r.dropPending(); err != nil {
		return nil, err
	}
	if err := r.loadBase(ctx); err != nil {
		// Reading what is intact must stay possible; the error comes back where it matters.
		r.log.Error("the newest snapshot can't be opened; run verify", "error", err)
	}
	r.forgetFailed(ctx)
	return r, nil
}

// dropPending fails the snapshots whose process has ended before they were sealed: nobody can do that any more. What changed in
// them is part of the next one.
func (r *Repo) dropPending() error {
	dropped, err := r.db.DropPending()
	if err != nil {
		return fmt.Errorf("drop unfinished snapshots: %w", err)
	}
	for _, s := range dropped {
		r.log.Warn("a snapshot was not complete when its server ended, and is dropped; what changed is part of the next one", "snapshot", s.Name, "id", s.ID)
	}
	return nil
}

// volumeID gives the volume's id, which the first opening makes: before anything is in the store. So an index without it isn't the one that
// belongs to a store with something in it.
func (r *Repo) volumeID(ctx context.Context) (string, error) {
	v, err := r.db.Meta(metaVolume)
	if err != nil {
		return "", fmt.Errorf("read the volume's id: %w", err)
	}
	if len(v) > 0 {
		return string(v), nil
	}
	if err := checkEmpty(ctx, r.target); err != nil {
		return "", err
	}
	id := newVolumeID()
	if err := r.db.PutMeta(metaVolume, []byte(id)); err != nil {
		return "", fmt.Errorf("record the volume's id: %w", err)
	}
	return id, nil
}

func openTarget(cfg Config) (target.Local, error) {
	if cfg.Target != nil {
		return cfg.Target, nil
	}
	return target.OpenDir(filepath.Join(cfg.State, "store"))
}

// checkIndex refuses to begin a new index beside a store that has something in it.
func checkIndex(ctx context.Context, cfg Config, path string) error {
	if st, err := os.Stat(path); err == nil && st.Size() > 0 {
		return nil
	}
	t, err := openTarget(cfg)
	if err != nil {
		return err
	}
	return checkEmpty(ctx, t)
}

func checkEmpty(ctx context.Context, t target.Target) error {
	for _, what := range []string{"manifests", "packs"} {
		list, err := t.List(ctx, what+"/")
		if err != nil {
			return err
		}
		if len(list) > 0 {
			return fmt.Errorf("%w, though the store has %d %s", ErrIndexLost, len(list), what)
		}
	}
	return nil
}

// Close waits for a running seal, and closes index and store. No read may be running.
func (r *Repo) Close() error {
	r.turns.sealing.Lock()
	defer r.turns.sealing.Unlock()
	r.ahead.running.Wait()
	return errors.Join(r.store.Close(), r.db.Close())
}

// Index is the volume's index.
func (r *Repo) Index() *index.DB { return r.db }

// Hold keeps complete snapshots from being deleted, for a reason that is shown; an empty one lets them go. All or none. Errors: ErrNotComplete, ErrNoSnapshot.
func (r *Repo) Hold(reason string, snaps []index.Snapshot) error {
	r.upkeep.deleting.Lock()
	defer r.upkeep.deleting.Unlock()
	ids := make([]string, 0, len(snaps))
	for _, s := range snaps {
		if s.State != index.StateComplete {
			return fmt.Errorf("hold %s: %w", s.Name, ErrNotComplete)
		}
		ids = append(ids, s.ID)
	}
	err := r.db.Hold(reason, ids...)
	if errors.Is(err, index.ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrNoSnapshot, err)
	}
	return err
}

// Store is the volume's chunk store.
func (r *Repo) Store() *chunkstore.Store { return r.store }

// Target is where packs and manifests are.
func (r *Repo) Target() target.Local { return r.target }

// VolumeID is a random name that the volume got when its state directory was first used.
func (r *Repo) VolumeID() string { return r.volume }

// SetLive lets readers take unchanged data from the live volume; nil stops that for reads that begin later.
func (r *Repo) SetLive(l Live) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.live = l
}

// liveBase gives the live volume and the snapshot that it is compared with; nil if there is no such thing.
func (r *Repo) liveBase() (Live, *base) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.live == nil || r.mu.newest == nil {
		return nil, nil
	}
	return r.mu.live, r.mu.newest
}

// loadBase makes the newest complete snapshot the one that the live volume is compared with. It is called whenever
// the catalogue's complete snapshots have changed.
func (r *Repo) loadBase(ctx context.Context) error {
	var b *base
	snap, ok, err := r.Newest()
	if err == nil && ok {
		b = &base{id: snap.ID}
		b.root, err = r.readRoot(ctx, snap)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		b = nil
	}
	r.mu.newest = b
	return err
}

func (r *Repo) readRoot(ctx context.Context, snap index.Snapshot) (tree.Root, error) {
	p, err := r.store.Get(ctx, snap.Root, nil)
	if err != nil {
		return tree.Root{}, fmt.Errorf("read the root of snapshot %s: %w", snap.Name, err)
	}
	root, err := tree.DecodeRoot(p)
	if err != nil {
		return tree.Root{}, fmt.Errorf("root of snapshot %s: %w", snap.Name, err)
	}
	return root, nil
}

// pin is a snapshot that a reader or a seal needs.
type pin struct {
	users int
	root  chunkstore.ID
}

// pin keeps what a complete snapshot refers to from being pruned until unpin, also if the snapshot is deleted meanwhile.
// ErrNoSnapshot: it was deleted before.
func (r *Repo) pin(snap index.Snapshot) error {
	r.mu.Lock()
	p := r.mu.pins[snap.ID]
	r.mu.pins[snap.ID] = pin{p.users + 1, snap.Root}
	r.mu.Unlock()
	// Only now: who deletes and prunes after this look sees the pin.
	all, err := r.Snapshots()
	if err == nil && !slices.ContainsFunc(all, func(s index.Snapshot) bool { return s.ID == snap.ID }) {
		err = fmt.Errorf("%w: %s was deleted", ErrNoSnapshot, snap.Name)
	}
	if err != nil {
		r.unpin(snap.ID)
	}
	return err
}

func (r *Repo) unpin(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.mu.pins[id]
	if p.users--; p.users <= 0 {
		delete(r.mu.pins, id)
		return
	}
	r.mu.pins[id] = p
}

// pinnedRoots gives the roots of the snapshots that readers and running seals need, deleted ones too.
func (r *Repo) pinnedRoots() []chunkstore.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	roots := make([]chunkstore.ID, 0, len(r.mu.pins))
	for _, p := range r.mu.pins {
		roots = append(roots, p.root)
	}
	return roots
}
