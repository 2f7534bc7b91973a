package remote

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"graphvol/chunkstore"
	"graphvol/chunkstore/erasure"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot"
)

// state is a remote's record in the index.
type state struct {
	Spec  Spec   `json:"spec"`
	Store string `json:"store,omitempty"` // the remote's id; empty: it was never reached
	Head  headAt `json:"head"`            // the newest that was written or seen; number 0: none
	Ours  bool   `json:"ours,omitempty"`  // this state directory has written it

	Was   []Spec       `json:"was,omitempty"` // how the remote was spread before it was moved
	Scrub *scrubRecord `json:"scrub,omitempty"`
}

// storeFile is the object store.json.
type storeFile struct {
	FormatVersion int    `json:"format_version"`
	Store         string `json:"store"`
	Volume        string `json:"volume"`
	Encrypted     bool   `json:"encrypted"`
}

// StoreVersion is the format_version of store.json that this software writes, and the greatest that it reads.
const StoreVersion = 1

const (
	storeName    = "store.json"
	maxStoreFile = 1 << 16
)

func newID() string {
	p := make([]byte, 8)
	_, _ = rand.Read(p) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(p)
}

// open compares what the index knows of the remote with what is there, and makes the remote if there is nothing.
func (r *Remote) open(ctx context.Context, takeOver bool) error {
	r.clustered = nil
	st, err := readState(r.cfg.Local.Index, r.cfg.Name)
	if err != nil {
		return err
	}
	st.Spec = r.spec()
	if r.writer, err = writerID(r.cfg.Local.Index); err != nil {
		return err
	}
	there, err := r.openTarget(ctx, st.Head.Sequence == 0)
	if err != nil {
		return err
	}
	switch {
	case takeOver:
		st.Store = there.Store
		var h head
		if st.Head, h, err = r.newestHead(ctx); err == nil {
			err = r.adopt(ctx, h)
		}
	case st.Store == "":
		st.Store = there.Store
		st.Head, err = r.begin(ctx)
	case st.Store != there.Store:
		err = fmt.Errorf("%w: it was copy %s when it was last used, and is %s", ErrForeign, st.Store, there.Store)
	default:
		err = r.checkHead(ctx, &st)
	}
	if err == nil {
		err = r.record(&st)
	}
	if err != nil {
		return err
	}
	r.state, r.known = st, true
	return nil
}

// openTarget opens the target, and makes the remote if there is nothing. unused: this state directory has written nothing there.
func (r *Remote) openTarget(ctx context.Context, unused bool) (f storeFile, err error) {
	o := r.cfg.Opener
	spec := r.spec()
	base, err := o.Base(ctx, spec)
	if err != nil {
		return f, err
	}
	r.base = base
	if f, err = r.storeFile(ctx, base); err != nil {
		return f, err
	}
	if spec.Encrypt {
		if !f.Encrypted {
			return f, fmt.Errorf("%w: it was begun without encryption, which can't be changed: give the encrypted copy a directory or prefix of its own", ErrForeign)
		}
		if unused {
			err = o.makeKey(ctx, r.cfg.Name, base, f)
		}
		if err != nil {
			return f, err
		}
	}
	u, err := o.unlock(ctx, r.cfg.Name, spec, base, f)
	r.target = u.Target
	return f, err
}

// record writes what a round knows of the remote. What others know stays.
func (r *Remote) record(st *state) error {
	r.recording.Lock()
	defer r.recording.Unlock()
	now, err := readState(r.cfg.Local.Index, r.cfg.Name)
	if err != nil {
		return err
	}
	st.Scrub, st.Was = now.Scrub, now.Was
	return writeState(r.cfg.Local.Index, r.cfg.Name, st)
}

func readState(ix Index, name string) (st state, err error) {
	rec, err := ix.Remote(name)
	if err != nil || rec == nil {
		return st, err
	}
	if err := json.Unmarshal(rec, &st); err != nil {
		return st, fmt.Errorf("the index's record of copy %s can't be understood (%w): run graphvol rebuild", name, err)
	}
	return st, nil
}

func writeState(ix Index, name string, st *state) error {
	p, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return ix.PutRemote(name, p)
}

// metaWriter is the fact with this state directory's id as a writer of remotes.
const metaWriter = "remote.writer"

func writerID(ix Index) (string, error) {
	id, err := ix.Meta(metaWriter)
	if err != nil || len(id) > 0 {
		return string(id), err
	}
	fresh := newID()
	return fresh, ix.PutMeta(metaWriter, []byte(fresh))
}

// storeFile reads store.json, or makes it on a target that has nothing.
func (r *Remote) storeFile(ctx context.Context, base target.Target) (storeFile, error) {
	f, err := readStoreFile(ctx, base)
	if errors.Is(err, fs.ErrNotExist) {
		return r.makeStore(ctx, base)
	}
	if err == nil && f.Volume != r.cfg.Local.Volume {
		err = fmt.Errorf("%w: it is a copy of volume %s, and this is volume %s; give each volume a directory or prefix of its own", ErrForeign, f.Volume, r.cfg.Local.Volume)
	}
	return f, err
}

// errPart says that a target alone isn't a remote.
var errPart = errors.New("it is a part of a copy that is spread over several targets: name all of them, and the layout (--erasure)")

func readStoreFile(ctx context.Context, t target.Target) (f storeFile, err error) {
	p, err := target.Get(ctx, t, storeName, maxStoreFile)
	if err != nil {
		return f, fmt.Errorf("reading %s: %w", storeName, err)
	}
	if erasure.IsPart(p) {
		return f, fmt.Errorf("%w: %w", ErrForeign, errPart)
	}
	if err := json.Unmarshal(p, &f); err != nil || f.FormatVersion < 1 || strings.Contains(f.Store, "/") || target.CheckName(f.Store) != nil {
		return f, fmt.Errorf("%w: its %s can't be understood", ErrForeign, storeName)
	}
	if f.FormatVersion > StoreVersion {
		return f, fmt.Errorf("%s has format %d: %w", storeName, f.FormatVersion, ErrNewerFormat)
	}
	return f, nil
}

func (f storeFile) encode() ([]byte, error) {
	p, err := json.MarshalIndent(f, "", "  ")
	return append(p, '\n'), err
}

func (r *Remote) makeStore(ctx context.Context, base target.Target) (f storeFile, err error) {
	list, err := base.List(ctx, "")
	if err != nil {
		return f, err
	}
	if len(list) > 0 {
		return f, fmt.Errorf("%w: it has no %s, and %d other objects; give it an empty directory or prefix", ErrForeign, storeName, len(list))
	}
	f = storeFile{FormatVersion: StoreVersion, Store: newID(), Volume: r.cfg.Local.Volume, Encrypted: r.spec().Encrypt}
	p, err := f.encode()
	if err != nil {
		return f, err
	}
	if err := putNew(ctx, base, storeName, p); err != nil {
		return f, fmt.Errorf("making the copy: %w", err)
	}
	r.cfg.Log.Info("a new copy of the store begins", "at", r.String(), "store", f.Store)
	return f, nil
}

// begin looks at a remote that the index doesn't know.
func (r *Remote) begin(ctx context.Context) (headAt, error) {
	at, h, err := r.newestHead(ctx)
	switch {
	case err != nil || at.Sequence == 0:
		return at, err
	case h.Writer == r.writer: // it was forgotten, and is declared anew
		return at, r.adopt(ctx, h)
	}
	return at, fmt.Errorf("%w: writer %s has written it on %s, and this state directory never has, or its index was made anew since; "+
		"if no other machine writes to it any more, take it over (graphvol sync VOLUME --take-over)", ErrTaken, h.Writer, timeOf(h))
}

// adopt enters in the index what is on the remote, whose newest head is h, and nothing else.
func (r *Remote) adopt(ctx context.Context, h head) error {
	list, err := r.target.List(ctx, chunkstore.PackPrefix)
	if err != nil {
		return err
	}
	rows, err := r.cfg.Local.Index.RemoteObjects(r.cfg.Name, "")
	if err != nil {
		return err
	}
	var gone []string
	for _, o := range rows {
		gone = append(gone, o.Name)
	}
	have := make([]index.RemoteObject, 0, len(list))
	for _, in := range list {
		have = append(have, index.RemoteObject{Name: in.Name, Size: in.Size})
	}
	for _, s := range h.Snapshots {
		have = append(have, index.RemoteObject{Name: snapshot.ManifestObject(s.ID)})
	}
	r.cfg.Log.Warn("the copy is taken over", "head", h.Sequence, "packs", len(list), "snapshots", len(h.Snapshots), "writer_before", h.Writer)
	return r.cfg.Local.Index.SetRemoteObjects(r.cfg.Name, have, gone)
}
