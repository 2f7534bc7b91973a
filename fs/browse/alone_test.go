package browse

import (
	"errors"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"graphvol/index"
)

var errAway = errors.New("the storage is away")

// fakeSource is a catalogue that another machine changes, and that may be away.
type fakeSource struct {
	*fakeCatalogue
	looks int
	next  func() // what a look finds
}

func (s *fakeSource) Fresh(<-chan struct{}) bool {
	s.looks++
	if s.next != nil {
		s.next()
	}
	return s.next != nil
}

func (s *fakeSource) Away(err error) bool { return errors.Is(err, errAway) }

// TestAlone: the kernel's root is the directory of snapshots; who lists it, or asks for what isn't there, gets a look at the source.
func TestAlone(t *testing.T) {
	f, cat, log := newTestFS(t)
	src := &fakeSource{fakeCatalogue: cat}
	a := NewAlone(f, src)
	root := &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}
	one := lookup(t, a, fuse.FUSE_ROOT_ID, "one")
	if src.looks != 0 {
		t.Error("a look for what is known")
	}
	var attr fuse.AttrOut
	if s := a.GetAttr(nil, &fuse.GetAttrIn{InHeader: *root}, &attr); !s.Ok() || attr.Mode != fuse.S_IFDIR|0o555 {
		t.Errorf("%v, %+v", s, attr)
	}
	if up := lookup(t, a, one.NodeId, ".."); up.NodeId != fuse.FUSE_ROOT_ID {
		t.Errorf("above a snapshot is node %#x", up.NodeId)
	}
	if s := a.Lookup(nil, root, "new", new(fuse.EntryOut)); s != fuse.ENOENT || src.looks != 1 {
		t.Errorf("%v after %d looks", s, src.looks)
	}
	src.next = func() { cat.add("new", 9, index.StateComplete) }
	lookup(t, a, fuse.FUSE_ROOT_ID, "new")
	if src.looks != 2 {
		t.Errorf("%d looks", src.looks)
	}
	file := lookup(t, a, one.NodeId, "file")
	cat.remove("one")
	src.next = nil
	if err := f.Changed(); err != nil {
		t.Fatal(err)
	}
	read := func() fuse.Status {
		_, s := a.Read(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: file.NodeId}, Size: 16}, make([]byte, 16))
		return s
	}
	if s := read(); !s.Ok() {
		t.Errorf("reading a file of a snapshot that was deleted: %v", s)
	}
	if s := a.Lookup(nil, root, "one", new(fuse.EntryOut)); s != fuse.ENOENT {
		t.Errorf("a snapshot that was deleted: %v", s)
	}
	if s := f.failed(nil, 0, errAway); s != fuse.EIO || log.lines("level=ERROR") != 0 {
		t.Errorf("what is away: %v, log: %s", s, log.b.String())
	}
}
