package browse

import (
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Source is what an Alone shows: snapshots that another machine makes and deletes.
type Source interface {
	Catalogue
	// Fresh looks whether there are others by now, if that is worth while; true: there may be. It ends early when cancel is closed.
	Fresh(cancel <-chan struct{}) bool
	// Away tells whether an error says that the snapshots can't be reached for the time being, which is logged already.
	Away(err error) bool
}

// Alone is the tree mounted by itself: the kernel's root is what .snapshots is otherwise. Deleted snapshots have no name any more, but what is open of them can be
// read as long as their data is there.
type Alone struct {
	*FS
	source Source
}

var _ fuse.RawFileSystem = (*Alone)(nil)

// NewAlone makes the tree over f, which is a new one over the source.
func NewAlone(f *FS, source Source) *Alone {
	a := &Alone{f, source}
	f.alone = a
	return a
}

func (a *Alone) away(err error) bool { return a.source.Away(err) }

// rooted gives the header with the id by which FS knows the root.
func rooted(h fuse.InHeader) fuse.InHeader {
	if h.NodeId == fuse.FUSE_ROOT_ID {
		h.NodeId = RootID
	}
	return h
}

// notifier tells the kernel of names in its own root.
type notifier struct{ Notifier }

func (n notifier) EntryNotify(parent uint64, name string) fuse.Status {
	if parent == RootID {
		parent = fuse.FUSE_ROOT_ID
	}
	return n.Notifier.EntryNotify(parent, name)
}

// Init is called by fuse.NewServer.
func (a *Alone) Init(s *fuse.Server) { a.SetNotifier(notifier{s}) }

// Lookup finds a snapshot by name, or a name in one. A snapshot that isn't known may be new.
func (a *Alone) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	at := rooted(*h)
	s := a.FS.Lookup(cancel, &at, name, out)
	if s == fuse.ENOENT && at.NodeId == RootID && a.source.Fresh(cancel) {
		s = a.FS.Lookup(cancel, &at, name, out)
	}
	if out.NodeId == RootID { // ".." of a snapshot
		out.NodeId = fuse.FUSE_ROOT_ID
	}
	return s
}

// GetAttr returns the attributes as stored.
func (a *Alone) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	at := *in
	at.InHeader = rooted(in.InHeader)
	return a.FS.GetAttr(cancel, &at, out)
}

// Statx is GetAttr with the time of birth.
func (a *Alone) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	at := *in
	at.InHeader = rooted(in.InHeader)
	return a.FS.Statx(cancel, &at, out)
}

// GetXAttr returns an extended attribute.
func (a *Alone) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	at := rooted(*h)
	return a.FS.GetXAttr(cancel, &at, attr, dest)
}

// ListXAttr lists extended attributes.
func (a *Alone) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	at := rooted(*h)
	return a.FS.ListXAttr(cancel, &at, dest)
}

// Open allows reading.
func (a *Alone) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	at := *in
	at.InHeader = rooted(in.InHeader)
	return a.FS.Open(cancel, &at, out)
}

// OpenDir makes a handle.
func (a *Alone) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	at := *in
	at.InHeader = rooted(in.InHeader)
	return a.FS.OpenDir(cancel, &at, out)
}

// ReadDir lists names.
func (a *Alone) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return a.FS.ReadDir(cancel, a.listed(cancel, in), out)
}

// ReadDirPlus lists names with their attributes.
func (a *Alone) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return a.FS.ReadDirPlus(cancel, a.listed(cancel, in), out)
}

// listed gives the request for FS. Who begins to list the snapshots gets the newest.
func (a *Alone) listed(cancel <-chan struct{}, in *fuse.ReadIn) *fuse.ReadIn {
	at := *in
	at.InHeader = rooted(in.InHeader)
	if at.NodeId == RootID && at.Offset == 0 {
		a.source.Fresh(cancel)
	}
	return &at
}

// StatFs shows what a snapshot holds.
func (a *Alone) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	at := rooted(*h)
	return a.FS.StatFs(cancel, &at, out)
}
