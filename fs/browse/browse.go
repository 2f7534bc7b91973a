package browse

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"graphvol/index"
	"graphvol/snapshot/tree"
)

// RootID is the node id of .snapshots.
const RootID uint64 = 1 << 63

const (
	inoBits = 48
	inoMask = 1<<inoBits - 1
	seqMask = 1<<15 - 1
)

// IsNode reports whether a FUSE node id belongs to this package.
func IsNode(id uint64) bool { return id&RootID != 0 }

// ErrInoTooLarge: the backing filesystem uses inode numbers of more than 48 bits, which node ids have no room for.
var ErrInoTooLarge = errors.New("inode number of more than 48 bits")

// NodeID gives the node id of an inode of a snapshot.
func NodeID(seq, ino uint64) (uint64, error) {
	if ino > inoMask {
		return 0, fmt.Errorf("%w: %#x", ErrInoTooLarge, ino)
	}
	return RootID | seq&seqMask<<inoBits | ino, nil
}

func splitID(id uint64) (seq, ino uint64) { return id >> inoBits & seqMask, id & inoMask }

// Reader reads one snapshot; *snapshot.Reader is one. Safe for concurrent use. Its methods' errors wrap fs.ErrNotExist for what isn't there.
type Reader interface {
	Root() uint64
	// Inode gives an inode without its extended attributes.
	Inode(ctx context.Context, ino uint64) (tree.Inode, error)
	// EachXattr calls fn for an inode's extended attributes, ascending by name; fs.SkipAll ends it.
	EachXattr(ctx context.Context, ino uint64, fn func(tree.Xattr) error) error
	Lookup(ctx context.Context, dir uint64, name string) (tree.Dirent, error)
	ReadDir(ctx context.Context, dir uint64) ([]tree.Dirent, error)
	ReadAt(ctx context.Context, ino uint64, p []byte, off int64) (int, error)
	NextData(ctx context.Context, ino uint64, off int64) (start, end int64, err error)
	Close() error
}

// Catalogue is where the snapshots are. Safe for concurrent use.
type Catalogue interface {
	// Snapshots lists all of them, oldest first.
	Snapshots() ([]index.Snapshot, error)
	// Reader opens a complete one.
	Reader(ctx context.Context, snap index.Snapshot) (Reader, error)
}

// Notifier is the part of *fuse.Server that tells the kernel to forget a name.
type Notifier interface {
	EntryNotify(parent uint64, name string) fuse.Status
}

// Time-outs of what the kernel caches.
const (
	immutable   = 24 * time.Hour
	nameTimeout = time.Second
)

// maxOpen bounds the readers kept open for snapshots that nobody reads at the moment.
const maxOpen = 64

// FS serves the tree. All its methods may be called concurrently. It is a whole fuse.RawFileSystem for ids of this package; the caller sends it the requests whose
// NodeId has bit 63, and answers a look-up of .snapshots with Root.
type FS struct {
	fuse.RawFileSystem // methods that exist for other systems only
	cat                Catalogue
	log                *slog.Logger

	mu struct {
		sync.Mutex
		notify  Notifier
		open    map[uint64]*volume // by the low bits of Seq
		clock   uint64             // counts acquisitions; volume.used is its value
		changed chan struct{}      // closed and replaced by Changed
		names   map[string]string  // snapshot id to name, as last listed
	}
	alone *Alone // nil: a part of another tree
	dirs  dirTable
	told  struct {
		mu struct {
			sync.Mutex
			seen map[[sha256.Size]byte]bool
		}
	}
}

var _ fuse.RawFileSystem = (*FS)(nil)

// New makes the tree over a catalogue. Call Close when it isn't used any more.
func New(cat Catalogue, log *slog.Logger) *FS {
	f := &FS{RawFileSystem: fuse.NewDefaultRawFileSystem(), cat: cat, log: log}
	f.mu.open = make(map[uint64]*volume)
	f.mu.changed = make(chan struct{})
	f.mu.names = make(map[string]string)
	f.dirs.mu.open = make(map[uint64]*dir)
	f.told.mu.seen = make(map[[sha256.Size]byte]bool)
	return f
}

// String names the filesystem in go-fuse's debug output.
func (f *FS) String() string { return "graphvol snapshots" }

// SetNotifier tells how to reach the kernel; nil: not at all.
func (f *FS) SetNotifier(n Notifier) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.notify = n
}

// Init is called by fuse.NewServer when FS is mounted by itself.
func (f *FS) Init(s *fuse.Server) { f.SetNotifier(s) }

// background is the context of everything but the wait for a seal: an interrupted read of a page would be an I/O error for its reader, and reads don't
// wait for long.
func background() context.Context { return context.Background() }
