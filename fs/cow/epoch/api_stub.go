package epoch

import (
	"errors"
	"iter"
	"math"

	"graphvol/index"
)

var errStub = errors.New("epoch: not built yet")

var (
	ErrNewerFormat = errors.New("newer format")
	ErrCorrupt     = errors.New("corrupt")
)

// Pseudo regions for IntentNeeded and IntentDone.
const (
	RegionAttr  uint32 = math.MaxUint32     // the inode's attributes
	RegionNames uint32 = math.MaxUint32 - 1 // the directory's names
	RegionAll   uint32 = math.MaxUint32 - 2 // every region of the file
)

type Epoch struct{}
type Inode struct{}

// Loader is index.DB.
type Loader interface {
	LoadEpoch(epoch uint64, fn func(*index.Dirty) error) error
}

func Create(dir string, n uint64) (*Epoch, error)                    { return nil, errStub }
func Load(dir string, n uint64) (*Epoch, error)                      { return nil, errStub }
func List(dir string) ([]uint64, error)                              { return nil, errStub }
func Delete(dir string, n uint64) error                              { return errStub }
func FromDirty(n uint64, seq iter.Seq[*index.Dirty]) (*Epoch, error) { return nil, errStub }
func FromIndex(l Loader, n uint64) (*Epoch, error)                   { return nil, errStub }
func (e *Epoch) Number() uint64                                      { return 0 }
func (e *Epoch) Inode(ino, gen uint64) *Inode                        { return nil }
func (e *Epoch) Find(ino uint64) *Inode                              { return nil }
func (e *Epoch) Len() int                                            { return 0 }
func (e *Epoch) All(yield func(*Inode) bool)                         {}
func (e *Epoch) DirtyBytes() int64                                   { return 0 }
func (e *Epoch) Merge(older *Epoch) error                            { return errStub }
func (e *Epoch) Encode() iter.Seq[*index.Dirty]                      { return nil }
func (e *Epoch) Durable() bool                                       { return false }
func (e *Epoch) DurableErr() error                                   { return nil }
func (e *Epoch) Damaged() int                                        { return 0 }
func (e *Epoch) Sync() error                                         { return errStub }
func (e *Epoch) Close() error                                        { return errStub }
func (e *Epoch) Remove() error                                       { return errStub }

func (i *Inode) Ino() uint64                                { return 0 }
func (i *Inode) Gen() uint64                                { return 0 }
func (i *Inode) Blocks(first, n uint64) bool                { return false } // all marked in this epoch itself
func (i *Inode) Dirty(first, n uint64) bool                 { return false } // any dirty: marked here, merged, Content or Fresh
func (i *Inode) MarkBlocks(first, n uint64)                 {}
func (i *Inode) MarkAttr() (first bool)                     { return false }
func (i *Inode) MarkContent()                               {}
func (i *Inode) MarkFresh()                                 {}
func (i *Inode) MarkRemoved()                               {}
func (i *Inode) MarkAllNames()                              {}
func (i *Inode) MarkName(name string) (first bool)          { return false }
func (i *Inode) HasAttr() bool                              { return false } // marked in this epoch itself (like all Has…)
func (i *Inode) HasContent() bool                           { return false }
func (i *Inode) HasFresh() bool                             { return false }
func (i *Inode) HasRemoved() bool                           { return false }
func (i *Inode) HasAllNames() bool                          { return false }
func (i *Inode) HasName(name string) bool                   { return false } // this very name; AllNames not considered
func (i *Inode) Flags() index.DirtyFlags                    { return 0 }     // own and merged
func (i *Inode) DirtyName(name string) bool                 { return false } // own or merged or AllNames
func (i *Inode) Names() []string                            { return nil }   // own and merged, ascending
func (i *Inode) SetHint(parent uint64, name string)         {}
func (i *Inode) Hint() (parent uint64, name string)         { return 0, "" }
func (i *Inode) DirtyRuns(yield func(first, n uint64) bool) {}           // own and merged, ascending, never adjacent
func (i *Inode) Count() uint64                              { return 0 } // own and merged blocks
func (i *Inode) SetIdent(id index.Ident)                    {}
func (i *Inode) Ident() index.Ident                         { return index.Ident{} }
func (i *Inode) IntentNeeded(region uint32) bool            { return false }
func (i *Inode) IntentDone(region uint32)                   {}
