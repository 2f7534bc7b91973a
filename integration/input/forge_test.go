package input

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot"
	"graphvol/snapshot/tree"
)

// forger writes snapshots into a volume's store that no volume could give. All hashes are right: whoever hands over a store can compute
// them.
type forger struct {
	t      *testing.T
	store  string
	dest   target.Target
	w      *chunkstore.Writer
	chunks map[chunkstore.ID][]byte // those that trees are made of
	parent snapshot.Manifest
	hash   string // of the parent's manifest
}

// newForger forges snapshots that follow the newest one in the store of a volume that isn't mounted.
func newForger(t *testing.T, state string) *forger {
	t.Helper()
	f := &forger{t: t, store: filepath.Join(state, "store"), chunks: make(map[chunkstore.ID][]byte)}
	dest, err := target.OpenDir(f.store)
	must(t, err)
	f.dest = dest
	store, err := chunkstore.Open(t.Context(), dest, nil, chunkstore.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	f.w = store.NewWriter(t.Context())
	paths, err := filepath.Glob(filepath.Join(f.store, "manifests", "*.json"))
	must(t, err)
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		must(t, err)
		m, err := snapshot.ReadManifest(raw)
		must(t, err)
		if m.Created.After(f.parent.Created) {
			f.parent, f.hash = m, hash(raw)
		}
	}
	return f
}

func hash(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// Put implements tree.Putter.
func (f *forger) Put(p []byte) (chunkstore.ID, error) {
	id, err := f.w.Put(p)
	if err == nil && f.chunks[id] == nil {
		f.chunks[id] = bytes.Clone(p)
	}
	return id, err
}

// Get implements tree.Getter.
func (f *forger) Get(_ context.Context, id chunkstore.ID, buf []byte) ([]byte, error) {
	if p, ok := f.chunks[id]; ok {
		return append(buf[:0], p...), nil
	}
	return nil, chunkstore.ErrNotFound
}

// data stores a chunk of content.
func (f *forger) data(p []byte) chunkstore.ID {
	id, err := f.w.Put(p)
	must(f.t, err)
	return id
}

// finish makes all durable.
func (f *forger) finish() {
	_, err := f.w.Finish()
	must(f.t, err)
	f.w.Close()
}

// forged is one snapshot while it is made: inode records by number, and the root directory's number.
type forged struct {
	*forger
	root    uint64
	inodes  []tree.Entry
	sums    tree.Root // its counts
	inflate uint64    // by how much the inode table lies about its length
}

const forgedRoot = 2

func (f *forger) begin() *forged { return &forged{forger: f, root: forgedRoot} }

func (s *forged) inode(in *tree.Inode) {
	rec, err := tree.EncodeInode(s, in)
	must(s.t, err)
	s.record(in.Ino, rec)
	if in.IsRegular() {
		s.sums.Files++
		s.sums.Bytes += min(in.Size, 1<<40)
	}
}

func (s *forged) record(ino uint64, rec []byte) {
	s.inodes = append(s.inodes, tree.Entry{Key: ino, Value: rec})
}

// dir makes a directory. A name may be anything.
func (s *forged) dir(ino uint64, entries ...tree.Dirent) {
	s.inode(&tree.Inode{Ino: ino, Mode: tree.ModeDir | 0o755, Nlink: 2, Content: s.names(entries...)})
}

func (s *forged) names(entries ...tree.Dirent) tree.Ref {
	edits := make([]tree.Edit, 0, len(entries))
	for _, e := range entries {
		edits = append(edits, tree.Edit{Entry: tree.DirEntry(e)})
	}
	slices.SortFunc(edits, tree.Edit.Compare)
	ref, err := tree.NewNodes(s, 1<<20).Apply(s.t.Context(), s, tree.Ref{}, edits)
	must(s.t, err)
	return ref
}

// file makes a regular file.
func (s *forged) file(ino uint64, size int64, content tree.Ref) {
	s.inode(&tree.Inode{Ino: ino, Mode: tree.ModeRegular | 0o644, Nlink: 1, Size: size, Blocks: content.Count, Content: content})
}

// segments makes content of one chunk at many places.
func (s *forged) segments(seg tree.Segment, keys ...uint64) tree.Ref {
	b := tree.NewNodes(s, 1<<20).NewBuilder(s.t.Context(), s)
	for _, k := range keys {
		must(s.t, b.Add(tree.Entry{Key: k, Value: seg.Encode()}))
	}
	ref, err := b.Finish()
	must(s.t, err)
	return ref
}

func (s *forged) table() tree.Ref {
	slices.SortFunc(s.inodes, func(a, b tree.Entry) int { return cmp.Compare(a.Key, b.Key) })
	b := tree.NewNodes(s, 1<<20).NewBuilder(s.t.Context(), s)
	for _, e := range s.inodes {
		must(s.t, b.Add(e))
	}
	ref, err := b.Finish()
	must(s.t, err)
	ref.Count += s.inflate
	return ref
}

// end stores the root record and the manifest.
func (s *forged) end(name string) {
	root := tree.Root{Ino: s.root, Files: s.sums.Files, Bytes: s.sums.Bytes, Inodes: s.table()}
	id, err := s.Put(root.Encode())
	must(s.t, err)
	clear(s.chunks)
	m := s.parent
	m.SnapshotID, m.Name, m.Kind = "forged-"+name, name, index.KindIncremental
	m.Parent, m.ParentManifestSHA256 = s.parent.SnapshotID, s.hash
	m.Created, m.ChecksumSHA256 = s.parent.Created.Add(time.Millisecond), id.String()
	m.Files, m.Bytes = root.Files, root.Bytes
	raw, err := m.Encode()
	must(s.t, err, target.Put(s.t.Context(), s.dest, "manifests/"+m.SnapshotID+".json", raw))
	s.parent, s.hash = m, hash(raw)
}
