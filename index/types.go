package index

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"graphvol/chunkstore"
)

// States of a snapshot.
const (
	StatePending  = "pending"  // asked for, not sealed yet
	StateComplete = "complete" // sealed: everything it needs is durable
	StateFailed   = "failed"   // will never be complete; Snapshot.Error says why
)

// Kinds of a snapshot.
const (
	KindFull        = "full"        // sealed without a parent
	KindIncremental = "incremental" // sealed from what changed since its parent
)

// Snapshot is one entry of the catalogue.
type Snapshot struct {
	ID             string // unique, sortable by age; AddPending makes one if it is empty
	Name           string // unique among snapshots that haven't failed; may be empty
	Seq            uint64 // never used twice; the low 15 bits are unique among the entries of the catalogue, and not 0
	Parent         string // ID of the snapshot this one was sealed from; empty if none
	Kind           string // KindFull or KindIncremental
	State          string // StatePending, StateComplete or StateFailed
	Created        time.Time
	PauseNS        int64 // how long the gate was closed, nanoseconds
	SealNS         int64 // how long sealing took, nanoseconds
	Files          int64 // inodes in the snapshot
	Bytes          int64 // sum of the files' sizes
	DirtyBytes     int64 // of blocks dirty at the barrier
	StoredBytes    int64 // added to the store
	Root           chunkstore.ID
	ManifestSHA256 string
	Epoch          uint64   // the epoch that this snapshot ended
	Error          string   // why it failed
	Hold           string   // why it must not be deleted; empty: it may be
	Tags           []string // ascending
}

// Commit is what makes a pending snapshot complete.
type Commit struct {
	Snapshot Snapshot
	Chunks   []chunkstore.Located // durable already; Complete sorts the slice
}

// DirtyFlags say which parts of an inode are dirty beside single blocks and names.
type DirtyFlags uint32

// Flags of a Dirty.
const (
	DirtyAttr    DirtyFlags = 1 << iota // attributes or xattrs
	DirtyContent                        // every block
	DirtyNames                          // every name of the directory
	DirtyFresh                          // a new inode: whatever was known under its number is void
	DirtyRemoved                        // its last link went
)

// Dirty is what changed of one inode in an epoch.
type Dirty struct {
	Ino, Gen uint64
	Flags    DirtyFlags
	Parent   uint64          // hint: a directory in which it was seen; 0 if unknown
	Name     string          // hint: its name there
	Names    []string        // for a directory: the entries that changed, ascending
	Blocks   *roaring.Bitmap // 4 KiB blocks; nil if none
	Ident    Ident           // as last seen in the epoch
}

// Ident tells whether a file is still what it was: any difference means that it changed.
type Ident struct {
	Valid     bool
	Gen       uint64
	Size      int64 // bytes
	CtimeSec  int64
	CtimeNsec uint32
	BtimeSec  int64
	BtimeNsec uint32
}

// IntentKind tells what an Intent announces.
type IntentKind uint8

// Kinds of intents.
const (
	IntentRegion   IntentKind = 1 + iota // blocks of one 64 MiB region of a file
	IntentDir                            // names of a directory
	IntentAttr                           // attributes of an inode
	IntentFile                           // all blocks of a file
	IntentAllDirs                        // names of any directory; Ino is 0
	IntentAllAttrs                       // attributes of any inode; Ino is 0
	IntentAll                            // anything at all; Ino is 0
)

// Intent announces a change that may reach the disk from now on.
type Intent struct {
	Kind     IntentKind
	Ino, Gen uint64
	Region   uint32 // number of the 64 MiB region, for IntentRegion
}
