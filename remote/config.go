package remote

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot"
)

// Index is what a Remote needs of the volume's index.
type Index interface {
	Snapshots() ([]index.Snapshot, error)
	PackIDs() ([]chunkstore.PackID, error)
	Meta(key string) ([]byte, error)
	PutMeta(key string, val []byte) error
	Remotes() ([]string, error)
	DropRemote(name string) error
	Remote(name string) ([]byte, error)
	PutRemote(name string, rec []byte) error
	RemoteObjects(name, prefix string) ([]index.RemoteObject, error)
	SetRemoteObjects(name string, have []index.RemoteObject, gone []string) error
}

var _ Index = (*index.DB)(nil)

// Local is the store that is copied.
type Local struct {
	Index  Index
	Target target.Target // has its packs and manifests
	Volume string        // the volume's id
	// Verify reads a pack and checks every byte of it, so that no damage is copied.
	Verify func(ctx context.Context, id chunkstore.PackID) error
	// VerifyObject is Verify for a pack that was read elsewhere.
	VerifyObject func(ctx context.Context, id chunkstore.PackID, obj target.Object) error
	// Needs reports the snapshots that need what is lost of packs.
	Needs func(ctx context.Context, lost map[chunkstore.PackID]error, report func(snapshot.Problem)) error
}

// Config describes a remote.
type Config struct {
	Name     string // in the index
	Spec     Spec
	Opener   *Opener
	Local    Local
	Log      *slog.Logger
	Parallel int           // objects that are put at the same time; 0: 4
	Grace    time.Duration // how long what no snapshot needs any more stays, for readers of a snapshot that was deleted meanwhile

	ScrubEvery time.Duration // how long after a scrub a worker does the next; 0: never
	ScrubLimit int64         // bytes a second that it reads; 0: any number
}

// Options are those of one round.
type Options struct {
	// TakeOver: another state directory has written to the remote, and doesn't any more; or the remote has lost something.
	TakeOver bool
	// Progress is called with the bytes that were put in this round, and all that have to be; it may be nil.
	Progress func(done, total int64)
}

const defaultParallel = 4

var (
	// ErrForeign says that a target has something else than this volume's remote.
	ErrForeign = errors.New("not a copy of this volume's store")
	// ErrTaken says that another state directory writes to the remote.
	ErrTaken = errors.New("another state directory writes to this copy")
	// ErrChanged says that somebody has taken something away from a remote, or put an older state in its place.
	ErrChanged = errors.New("changed by somebody else")
	// ErrNewerFormat says that a newer graphvol has written the remote.
	ErrNewerFormat = errors.New("written in a newer format; use the version of graphvol that wrote it, or a later one")
)

// Remote is a copy of a store. Its methods may be called from several goroutines; rounds wait for one another.
type Remote struct {
	cfg Config

	scrubbing chan struct{} // has room for the one scrub that may run
	recording sync.Mutex    // held while the record in the index is changed; guards cfg.Spec

	round  sync.Mutex    // held by a round; guards the next ones
	base   target.Target // without what encrypts
	target target.Target
	writer string // this state directory's id
	state  state
	known  bool // state was compared with the remote

	clustered map[string]bool // manifests of the cluster's snapshots that the remote has; nil: it wasn't asked yet
}

// New returns a Remote. It doesn't look at the target yet.
func New(cfg Config) *Remote {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = defaultParallel
	}
	cfg.Log = cfg.Log.With("remote", cfg.Name)
	return &Remote{cfg: cfg, scrubbing: make(chan struct{}, 1)}
}

// Name is the remote's name in the index.
func (r *Remote) Name() string { return r.cfg.Name }

// String names the place for people.
func (r *Remote) String() string { return r.spec().String() }

// spec is where it is at the moment; Move changes it.
func (r *Remote) spec() Spec {
	r.recording.Lock()
	defer r.recording.Unlock()
	return r.cfg.Spec
}
