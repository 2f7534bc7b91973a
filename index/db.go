package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"graphvol/internal/durable"
)

// FormatVersion is the version of the index that this software reads and writes.
const FormatVersion = 1

// Names of the top-level buckets; what they hold is in the package documentation.
const (
	bucketFormat    = "format"
	bucketMeta      = "meta"
	bucketSnapshots = "snapshots"
	bucketEpochs    = "epochs"
	bucketPacks     = "packs"
	bucketChunks    = "chunks"

	keyVersion = "version"
)

const (
	defaultTimeout = time.Second
	// Only address space: while the file is smaller than its mapping, a growing file needn't wait for readers.
	mmapSize = 1 << 30
)

// Options for Open.
type Options struct {
	Log     *slog.Logger  // nil: nothing is logged
	Timeout time.Duration // how long to wait for another process to release the index; 0: one second
	// Unsynced: nothing is durable before Sync. For an index that is thrown away if it isn't finished.
	Unsynced bool
}

// DB is an open index. All methods may be called concurrently.
type DB struct {
	path    string
	opts    Options
	log     *slog.Logger
	lock    *os.File // says that the index is in use
	packs   packTable
	intents *intentLog

	// using is held, shared, while bolt is used for reading, and exclusively while it is replaced, which also takes write.
	using    sync.RWMutex
	bolt     *bbolt.DB
	file     *os.File // bolt's
	pageSize int

	// write serialises write transactions and lets Check keep them out. It guards the next two.
	write     sync.Mutex
	doubt     *doubt
	suspected bool // suspectLocked has done its work

	owed owed
	// committed, if set, is called after each write transaction, with write held. It is there for tests.
	committed func()
}

// Open opens the index at path, and makes it if it isn't there. Its directory must exist. Errors: ErrInUse,
// ErrNewerFormat, ErrCorrupt, and those of the filesystem.
func Open(path string, opts Options) (*DB, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	db := &DB{path: path, log: opts.Log}
	if err := db.openBolt(opts); err != nil {
		return nil, fmt.Errorf("opening index %s: %w", path, err)
	}
	if err := db.load(); err != nil {
		db.bolt.Close()
		db.lock.Close()
		return nil, fmt.Errorf("opening index %s: %w", path, err)
	}
	return db, nil
}

func (db *DB) openBolt(o Options) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer db.guard("the file", &err)
	if err := checkFile(db.path); err != nil {
		return err
	}
	before, _ := os.Stat(db.path)
	db.bolt, err = bbolt.Open(db.path, 0o600, boltOptions(o, func() (*os.File, error) {
		db.file, err = os.OpenFile(db.path, os.O_RDWR|os.O_CREATE, 0o600)
		return db.file, err
	}))
	if err != nil {
		return db.boltError("the file", err)
	}
	// Who had it may have put another in its place while we waited: a rebuild does.
	if after, err := os.Stat(db.path); err != nil || before != nil && !os.SameFile(before, after) {
		db.bolt.Close()
		return ErrInUse
	}
	if db.lock, err = os.Open(db.path); err == nil {
		err = moveLock(db.file, db.lock)
	}
	if err != nil {
		db.lock.Close()
		db.bolt.Close()
		return err
	}
	db.opts, db.pageSize = o, db.bolt.Info().PageSize
	return nil
}

func boltOptions(o Options, open func() (*os.File, error)) *bbolt.Options {
	opts := &bbolt.Options{
		Timeout: o.Timeout, FreelistType: bbolt.FreelistMapType, NoStatistics: true, NoSync: o.Unsynced,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return open() },
	}
	if bits.UintSize == 64 {
		opts.InitialMmapSize = mmapSize
	}
	return opts
}

// moveLock moves bbolt's lock from its own file to another descriptor of it. A lock ends when nothing refers to the open file any more, and bbolt maps its
// file: a process that was killed and waits for an answer of the mount that it has served has closed its descriptors, but still has its memory. Its lock would
// keep out the server that alone can give the answer. Who comes in between finds the index as it will stay: nothing is written before the lock is had again.
func moveLock(from, to *os.File) error {
	if err := unix.Flock(int(from.Fd()), unix.LOCK_UN); err != nil {
		return fmt.Errorf("unlock the index: %w", err)
	}
	return lockIndex(to)
}

func lockIndex(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return ErrInUse
	case err != nil:
		return fmt.Errorf("lock the index: %w", err)
	}
	return nil
}

// load checks the format, or makes a new index, and reads what is kept in memory.
func (db *DB) load() error {
	fresh, err := db.checkFormat()
	if err != nil {
		return err
	}
	// The log is made first: an index without its log would mean that the log was lost.
	if db.intents, err = openIntentLog(IntentPath(db.path), fresh, db.log); err != nil {
		return err
	}
	if fresh {
		err = db.initFormat()
	}
	if err == nil {
		err = db.view("packs", db.packs.load)
	}
	if err != nil {
		db.intents.close()
	}
	return err
}

// IntentPath is where the intents of the index at path are kept.
func IntentPath(path string) string { return strings.TrimSuffix(path, ".db") + ".intents" }

// checkFormat refuses what this software doesn't understand. It returns true if the file has nothing in it yet.
func (db *DB) checkFormat() (fresh bool, err error) {
	err = db.view("format", func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucketFormat))
		if b == nil {
			if k, _ := tx.Cursor().First(); k != nil {
				return corrupt("format", "this is a database of something else than graphvol", nil)
			}
			fresh = true
			return nil
		}
		if err := checkVersion(b.Get([]byte(keyVersion))); err != nil {
			return err
		}
		for _, name := range allBuckets() {
			if tx.Bucket([]byte(name)) == nil {
				return corrupt("format", "no bucket "+name, nil)
			}
		}
		return checkFacts(tx)
	})
	return fresh, err
}

// versionRecord is a format version with its CRC-32C, without which a flipped bit would look like the work of a newer program. The
// first indexes have version 1 alone.
func versionRecord(n uint32) []byte {
	p := binary.BigEndian.AppendUint32(nil, n)
	return binary.BigEndian.AppendUint32(p, checksum(p))
}

func checkVersion(p []byte) error {
	switch len(p) {
	case 4:
		p = append(p[:4:4], versionRecord(FormatVersion)[4:]...)
	case 8:
	default:
		return corrupt("format", "no version", nil)
	}
	n := binary.BigEndian.Uint32(p)
	if binary.BigEndian.Uint32(p[4:]) != checksum(p[:4]) {
		return corrupt("format", fmt.Sprintf("version %d has a wrong checksum", n), nil)
	}
	if n != FormatVersion {
		return fmt.Errorf("index has format version %d, this software reads version %d: %w", n, FormatVersion, ErrNewerFormat)
	}
	return nil
}

func allBuckets() []string {
	return []string{bucketMeta, bucketSnapshots, bucketEpochs, bucketPacks, bucketChunks}
}

func (db *DB) initFormat() error {
	err := db.update("format", func(tx *bbolt.Tx) error {
		for _, name := range allBuckets() {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		b, err := tx.CreateBucket([]byte(bucketFormat))
		if err != nil {
			return err
		}
		return b.Put([]byte(keyVersion), versionRecord(FormatVersion))
	})
	if err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(db.path))
}

// Close waits for running transactions, stores intents that were waiting to be, and releases the index.
func (db *DB) Close() error {
	err := errors.Join(db.intents.close(), db.bolt.Close())
	if lerr := db.lock.Close(); !errors.Is(lerr, os.ErrClosed) {
		err = errors.Join(err, lerr)
	}
	return err
}

// view runs fn in a read transaction. fn must not call out: a panic in it counts as damage.
func (db *DB) view(what string, fn func(*bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer db.guard(what, &err)
	db.using.RLock()
	defer db.using.RUnlock()
	if err := db.touchMetas(); err != nil {
		return err
	}
	return db.boltError(what, db.bolt.View(fn))
}

// update runs fn in a write transaction, which is durable when update returns. The same goes for fn as in view.
func (db *DB) update(what string, fn func(*bbolt.Tx) error) error {
	db.write.Lock()
	defer db.write.Unlock()
	return db.updateLocked(what, fn)
}

func (db *DB) updateLocked(what string, fn func(*bbolt.Tx) error) error {
	if err := errors.Join(db.suspectLocked(), db.settleLocked()); err != nil {
		return err
	}
	before, err := db.readMetas()
	if err != nil {
		return err
	}
	tried, err := db.transact(what, fn)
	if tried && err != nil {
		db.revokeLocked(before)
	}
	if err != nil {
		return err
	}
	if db.committed != nil {
		db.committed()
	}
	return nil
}

// transact runs fn in bbolt's transaction. tried: it was to be committed, so that after an error it may be visible all the same.
func (db *DB) transact(what string, fn func(*bbolt.Tx) error) (tried bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer db.guard(what, &err)
	owed := db.owed.all()
	err = db.bolt.Update(func(tx *bbolt.Tx) error {
		err := failAll(tx, owed)
		if err == nil {
			err = fn(tx)
		}
		tried = err == nil
		return err
	})
	if err == nil {
		db.owed.paid(owed)
	}
	return tried, db.boltError(what, err)
}

// guard turns what bbolt does on a damaged file, panics and (SetPanicOnFault) memory faults, into errors. It is to be
// deferred.
func (db *DB) guard(what string, err *error) {
	p := recover()
	if p == nil {
		return
	}
	db.log.Error("index: damaged, or a fault of the software", "part", what, "panic", p, "stack", string(debug.Stack()))
	*err = corrupt(what, fmt.Sprint(p), nil)
}

// boltError translates bbolt's errors to the package's.
func (db *DB) boltError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return ErrInUse
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return ErrClosed
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return corrupt(what, "not a database of graphvol, or cut short", err)
	}
	return err
}

// PutMeta stores a small fact. It is durable when PutMeta returns. A nil val removes it.
func (db *DB) PutMeta(key string, val []byte) error {
	return db.update("meta", func(tx *bbolt.Tx) error { return putFact(tx, key, val) })
}

// Meta returns a fact stored by PutMeta, nil if there is none. The slice is the caller's.
func (db *DB) Meta(key string) (val []byte, err error) {
	err = db.view("meta", func(tx *bbolt.Tx) error {
		if v := tx.Bucket([]byte(bucketMeta)).Get([]byte(key)); v != nil {
			val = append([]byte{}, v...)
		}
		return nil
	})
	return val, err
}
