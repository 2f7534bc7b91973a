package snapshot

import (
	"context"
	"log/slog"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot/tree"
)

// Config says where a Repo is and how it works.
type Config struct {
	State   string       // the state directory, which must exist
	Log     *slog.Logger // nil: nothing is logged
	Workers int          // goroutines that read and hash for a seal; 0: a default for the machine
	Node    string       // this node's name in manifests; empty: the host's
	// CacheBytes bounds the decompressed chunks kept for readers; 0: 64 MiB.
	CacheBytes int
	// Target holds packs and manifests; nil: the directory State/store.
	Target target.Target
}

// Repo is a volume's snapshots: catalogue, chunks and manifests. It is safe for concurrent use.
type Repo struct{}

// Open opens the snapshots of a state directory. No mount is needed.
func Open(ctx context.Context, cfg Config) (*Repo, error) { panic("") }

// Close waits for running seals, and closes index and store.
func (r *Repo) Close() error { panic("") }

// Index is the volume's index.
func (r *Repo) Index() *index.DB { panic("") }

// Store is the volume's chunk store.
func (r *Repo) Store() *chunkstore.Store { panic("") }

// VolumeID is a random name that the volume got when its state directory was first used.
func (r *Repo) VolumeID() string { panic("") }

// SetLive lets readers take unchanged data from the live volume; nil stops that.
func (r *Repo) SetLive(l Live) {}

// BeginOptions are facts that are known when a snapshot is asked for.
type BeginOptions struct {
	PauseNS int64  // how long the gate was closed
	Epoch   uint64 // the epoch that the snapshot ends
}

// Begin enters a pending snapshot into the catalogue. An empty name is replaced by the time. The order of Begin is that of
// the barriers. Seal or Abandon must follow. Errors: ErrBadName, index.ErrExists.
func (r *Repo) Begin(name string, opts BeginOptions) (index.Snapshot, error) { panic("") }

// Abandon ends a snapshot that was begun and won't be sealed.
func (r *Repo) Abandon(snap index.Snapshot, cause error) error { panic("") }

// Progress is what a running seal has done.
type Progress struct {
	Files  int64 // inodes looked at
	Bytes  int64 // read
	Stored int64 // bytes of new content handed to the store, before compression
}

// Seal stores a pending snapshot, until it is complete or failed. It waits for the seals of older snapshots. It calls src.Release. snap.PauseNS and snap.Epoch are taken from what is passed here.
func (r *Repo) Seal(ctx context.Context, snap index.Snapshot, src Source, progress func(Progress)) (index.Snapshot, error) {
	panic("")
}

// Snapshots gives the catalogue, oldest first.
func (r *Repo) Snapshots() ([]index.Snapshot, error) { panic("") }

// Resolve finds a snapshot by name, id, unique prefix of either, or as "latest" (the newest complete one). Without a match the
// error wraps ErrNoSnapshot and lists names that are near.
func (r *Repo) Resolve(ref string) (index.Snapshot, error) { panic("") }

// Newest is the newest complete snapshot; false if there is none.
func (r *Repo) Newest() (index.Snapshot, bool, error) { panic("") }

// Reader opens a complete snapshot for reading.
func (r *Repo) Reader(ctx context.Context, snap index.Snapshot) (*Reader, error) { panic("") }

// Manifest reads a snapshot's manifest and gives the SHA-256 of its bytes too.
func (r *Repo) Manifest(ctx context.Context, id string) (Manifest, string, error) { panic("") }

// Manifest describes a snapshot; it is a JSON object in the target, manifests/<id>.json.
type Manifest struct{}

// Reader reads one snapshot. It is safe for concurrent use. Errors that mean damage wrap chunkstore.ErrCorrupt.
type Reader struct{}

// Snapshot is the snapshot that is read.
func (rd *Reader) Snapshot() index.Snapshot { panic("") }

// Root is the inode number of the root directory.
func (rd *Reader) Root() uint64 { panic("") }

// Inode gives an inode with its extended attributes; fs.ErrNotExist if the snapshot has none of that number. The result is not to be written to.
func (rd *Reader) Inode(ctx context.Context, ino uint64) (tree.Inode, error) { panic("") }

// Lookup finds a name in a directory; fs.ErrNotExist if it isn't there.
func (rd *Reader) Lookup(ctx context.Context, dir uint64, name string) (tree.Dirent, error) {
	panic("")
}

// ReadDir lists a directory, sorted by name, without "." and "..".
func (rd *Reader) ReadDir(ctx context.Context, dir uint64) ([]tree.Dirent, error) { panic("") }

// ReadAt reads from a regular file. At the end of the file it returns io.EOF with what there was.
func (rd *Reader) ReadAt(ctx context.Context, ino uint64, p []byte, off int64) (int, error) {
	panic("")
}

// NextData gives the first range of data at or after off; io.EOF if there is none.
func (rd *Reader) NextData(ctx context.Context, ino uint64, off int64) (start, end int64, err error) {
	panic("")
}

// NextHole gives the start of the first hole at or after off; the end of the file counts as one. io.EOF if off is at or after the end.
func (rd *Reader) NextHole(ctx context.Context, ino uint64, off int64) (int64, error) { panic("") }

// Blocks is the space a file's data takes, in units of 512 bytes.
func (rd *Reader) Blocks(ctx context.Context, ino uint64) (int64, error) { panic("") }

// EachInode calls fn for every inode, ascending by number, without extended attributes where they lie apart; fs.SkipAll ends it without an error.
func (rd *Reader) EachInode(ctx context.Context, fn func(tree.Inode) error) error { panic("") }

// Stats is the sum of the snapshot: number of regular files, and of their sizes in bytes.
func (rd *Reader) Stats() (files, bytes int64) { panic("") }

// Close ends reading. Reads that run may fail.
func (rd *Reader) Close() error { panic("") }
