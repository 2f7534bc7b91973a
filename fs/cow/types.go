package cow

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"graphvol/fs/cow/backing"
	"graphvol/index"
)

// The volume speaks of attributes and callers as the backing does.
type (
	Attr    = backing.Attr
	SetAttr = backing.SetAttr
	Dirent  = backing.Dirent
	Statfs  = backing.Statfs
)

// Caller is who a modifying request acts for.
type Caller struct {
	backing.Caller
	// Resent: the kernel sends this request for the second time, because the server that had it
	// first ended before it answered. Where the backing then says EEXIST or ENOENT and
	// what was asked for is already there, the request has succeeded.
	Resent bool
	// Request is the kernel's number of this request, the same when it is sent again.
	Request uint64
}

// WriteFlags qualify one write.
type WriteFlags struct {
	// KillPriv: setuid and setgid bits and security.capability go, as the kernel asks where
	// it leaves that to the filesystem.
	KillPriv bool
	Caller   backing.Caller // who writes; for KillPriv
}

// Errors of barriers and snapshots. Errors of file operations are the backing's own: a syscall.Errno.
var (
	// ErrBarrierTimeout: requests in flight did not finish in time; the gate is open again and
	// the running epoch goes on, nothing is lost.
	ErrBarrierTimeout = errors.New("requests in flight did not finish in time")
	// ErrHoldOver: the bound of a hold has passed, and the gate was opened before the cut.
	ErrHoldOver = errors.New("the gate was opened again, since nothing was cut within the bound")
	// ErrHoldReleased: the hold was ended by its own caller.
	ErrHoldReleased = errors.New("the hold has been released")
	// ErrPreimage: a preimage could not be saved, so the snapshot that needed it is lost; the
	// volume and its dirty map are whole, and the next snapshot covers what this one would have.
	ErrPreimage = errors.New("a preimage could not be saved")
	// ErrReleased: the ended epoch was released.
	ErrReleased = errors.New("the snapshot's epoch was released")
	// ErrSuperseded: a block that the ended epoch didn't change was asked for, and it has been
	// changed since. The snapshot's parent has it.
	ErrSuperseded = errors.New("block is unchanged in this epoch and was changed later; the parent snapshot has it")
	// ErrClosed: the volume is closed.
	ErrClosed = errors.New("the volume is closed")
)

// Recorded gives what the newest complete snapshot recorded of every inode, ascending by number. It is how
// changes made behind a volume's back are found. Implemented by snapshot's repository.
type Recorded interface {
	// Each calls fn for each inode until fn fails, and returns its error. known is false where there is no
	// complete snapshot: then the next one is full and nothing needs comparing.
	Each(ctx context.Context, fn func(ino uint64, id index.Ident) error) (known bool, err error)
}

// Config says what a Volume is made of. The Volume takes over Tree, not DB.
type Config struct {
	Tree     *backing.Tree
	DB       *index.DB
	State    string       // the state directory; epochs/ and preimages/ below it are the Volume's
	Log      *slog.Logger // nil: slog.Default
	Recorded Recorded     // nil: as if no snapshot were complete
	// Takeover: a server has ended and this one goes on with its mount. The marks in files are
	// whole, and nothing can have changed behind the volume's back.
	Takeover bool
	// BarrierTimeout bounds how long a barrier keeps the gate closed while it waits for requests in flight; 0: 2 s.
	BarrierTimeout time.Duration
	// SettleAfter is how long after a seal the backing is synced; see settle.go.
	SettleAfter time.Duration
}

// DirtyFile is what has changed of one inode since the newest complete snapshot.
type DirtyFile struct {
	Ino    uint64
	Gen    uint64 // tells it from others of its number; 0: unknown
	Path   string // of the live volume, relative to its root, which is "."; "" if the inode has no known name
	Bytes  int64  // of dirty blocks within the file's size; all of its data, but no holes, if its whole content counts as dirty
	Whole  bool   // the whole content counts as dirty, or would if it were a file; the inode may have taken the number of another
	Ranges []DirtyRange

	Removed  bool     // it has no name any more
	Fresh    bool     // it is new: another inode may have had its number before
	Names    []string // of a directory: names that may mean something else now
	AllNames bool     // any of its names may
}

// DirtyRange is a range of bytes, block aligned except at the file's end.
type DirtyRange struct{ Off, Len int64 }
