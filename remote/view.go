package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot"
)

// errReadOnly says that somebody tried to write to a view of a remote.
var errReadOnly = errors.New("a copy is only read here")

// View is a remote as it is read: the packs that are there, and the manifests that its newest head lists, each of which is what the head says it is. It is a
// target.Local so that a store can be read from it; nothing can be written.
type View struct {
	target.Target
	Volume    string // id of the volume that it is a copy of
	store     string
	head      headAt
	Newest    Head
	manifests map[string]string // SHA-256 by object
}

// Head tells of a remote's newest head.
type Head struct {
	Sequence  uint64
	Writer    string
	Snapshots int
}

var _ target.Local = (*View)(nil)

// OpenView looks at a remote. ErrForeign if there is none.
func OpenView(ctx context.Context, t target.Target) (*View, error) {
	r := &Remote{target: t}
	f, err := readStoreFile(ctx, t)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: it has no %s", t, ErrForeign, storeName)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	at, h, err := r.newestHead(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	v := &View{
		Target: t, Volume: f.Volume, store: f.Store, head: at, manifests: make(map[string]string, len(h.Snapshots)),
		Newest: Head{at.Sequence, h.Writer, len(h.Snapshots)},
	}
	for _, s := range h.Snapshots {
		v.manifests[snapshot.ManifestObject(s.ID)] = s.Manifest
	}
	return v, nil
}

// List lists of the manifests those that the head lists, whether they are there or not: one that is missing must be missed.
func (v *View) List(ctx context.Context, prefix string) ([]target.Info, error) {
	list, err := v.Target.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(in target.Info) bool { return strings.HasPrefix(in.Name, snapshot.ManifestPrefix) })
	for name := range v.manifests {
		if strings.HasPrefix(name, prefix) {
			list = append(list, target.Info{Name: name})
		}
	}
	slices.SortFunc(list, func(a, b target.Info) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Open opens an object. A manifest that isn't the one of the head is an ErrChanged.
func (v *View) Open(ctx context.Context, name string) (target.Object, error) {
	if !strings.HasPrefix(name, snapshot.ManifestPrefix) {
		return v.Target.Open(ctx, name)
	}
	want, ok := v.manifests[name]
	if !ok {
		return nil, fmt.Errorf("%s is not of the newest head: %w", name, fs.ErrNotExist)
	}
	p, err := target.Get(ctx, v.Target, name, snapshot.MaxManifest)
	if err != nil {
		return nil, err
	}
	if hashHex(p) != want {
		return nil, fmt.Errorf("%s: %w: %s isn't the one that head %d lists", v, ErrChanged, name, v.head.Sequence)
	}
	return target.Bytes(p), nil
}

// Put fails.
func (v *View) Put(context.Context, string, target.Source, target.PutOptions) error {
	return errReadOnly
}

// Remove fails.
func (v *View) Remove(context.Context, ...string) error { return errReadOnly }

// Create fails.
func (v *View) Create(context.Context) (target.Upload, error) { return nil, errReadOnly }

// SyncRemoved does nothing.
func (v *View) SyncRemoved(context.Context, string) error { return nil }

// Enter makes an index, which was made of the view, know the remote under a name, with all that is there.
func (v *View) Enter(ctx context.Context, ix Index, name string, spec Spec) error {
	list, err := v.List(ctx, "")
	if err != nil {
		return err
	}
	var have []index.RemoteObject
	for _, in := range list {
		if _, listed := v.manifests[in.Name]; listed || strings.HasPrefix(in.Name, chunkstore.PackPrefix) {
			have = append(have, index.RemoteObject{Name: in.Name, Size: in.Size})
		}
	}
	if err := writeState(ix, name, &state{Spec: spec, Store: v.store, Head: v.head}); err != nil {
		return err
	}
	return ix.SetRemoteObjects(name, have, nil)
}
