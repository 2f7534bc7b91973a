package index

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"graphvol/chunkstore"
)

var errStub = errors.New("index: not built yet")

var (
	ErrInUse       = errors.New("in use")
	ErrNewerFormat = errors.New("newer format")
	ErrCorrupt     = errors.New("corrupt")
	ErrExists      = errors.New("exists")
	ErrNotFound    = errors.New("not found")
	ErrNotPending  = errors.New("not pending")
	ErrTooMany     = errors.New("too many snapshots")
	ErrPackInUse   = errors.New("pack in use")
	ErrClosed      = errors.New("closed")
)

type Options struct {
	Log     *slog.Logger
	Timeout time.Duration // for the file lock; 0: one second
}
type DB struct{}

func Open(path string, opts Options) (*DB, error) { return nil, errStub }
func (db *DB) Close() error                       { return errStub }
func (db *DB) Check(ctx context.Context) error    { return errStub }
func (db *DB) Locate(id chunkstore.ID) (chunkstore.Location, bool, error) {
	return chunkstore.Location{}, false, errStub
}
func (db *DB) AddPending(s *Snapshot) error                                     { return errStub }
func (db *DB) Complete(c Commit) error                                          { return errStub }
func (db *DB) Fail(id, reason string) error                                     { return errStub }
func (db *DB) Snapshots() ([]Snapshot, error)                                   { return nil, errStub }
func (db *DB) Remove(ids ...string) error                                       { return errStub }
func (db *DB) DropPending() ([]Snapshot, error)                                 { return nil, errStub }
func (db *DB) PutEpoch(epoch uint64, seq iter.Seq[*Dirty]) error                { return errStub }
func (db *DB) Epochs() ([]uint64, error)                                        { return nil, errStub }
func (db *DB) LoadEpoch(epoch uint64, fn func(*Dirty) error) error              { return errStub }
func (db *DB) DropEpoch(epoch uint64) error                                     { return errStub }
func (db *DB) AddIntents(ctx context.Context, epoch uint64, in ...Intent) error { return errStub }
func (db *DB) Intents(epoch uint64) ([]Intent, error)                           { return nil, errStub }
func (db *DB) DropIntents(epoch uint64) error                                   { return errStub }
func (db *DB) Fingerprints(ino uint64, page uint32, dst []uint32) (bool, error) {
	return false, errStub
}
func (db *DB) PutMeta(key string, val []byte) error                                 { return errStub }
func (db *DB) Meta(key string) ([]byte, error)                                      { return nil, errStub }
func (db *DB) ForEachChunk(fn func(chunkstore.ID, chunkstore.Location) error) error { return errStub }
func (db *DB) Relocate(add []chunkstore.Located, removePacks []chunkstore.PackID, dropIDs ...chunkstore.ID) error {
	return errStub
}
