package cow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"graphvol/fs/cow/backing"
	"graphvol/index"
	"graphvol/snapshot"
	"graphvol/snapshot/tree"
)

// world is a volume in temporary directories, with what seals its epochs: images in memory instead of a store.
type world struct {
	t      testing.TB
	back   string
	state  string
	db     *index.DB
	v      *Volume
	sealed *image        // of the newest complete snapshot; nil: none
	told   *image        // what Each tells instead, if not nil
	wait   chan struct{} // Each waits until it is closed, if not nil
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, back: filepath.Join(dir, "back"), state: filepath.Join(dir, "state")}
	for _, d := range []string{w.back, w.state} {
		w.must(os.Mkdir(d, 0o755))
	}
	w.open(false)
	t.Cleanup(func() {
		w.v.Close(context.Background())
		w.db.Close()
	})
	return w
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Helper()
		w.t.Fatal(err)
	}
}

func (w *world) open(takeover bool) {
	w.t.Helper()
	var err error
	w.db, err = index.Open(filepath.Join(w.state, "index.db"), index.Options{})
	w.must(err)
	_, err = w.db.DropPending()
	w.must(err)
	root, err := os.Open(w.back)
	w.must(err)
	log := slog.New(slog.NewTextHandler(testWriter{w.t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	tr, err := backing.Open(backing.Config{Root: root, State: w.state, Log: log, Takeover: takeover})
	w.must(err)
	w.v, err = Open(context.Background(), Config{Tree: tr, DB: w.db, State: w.state, Log: log, Recorded: told{w, w.wait}, Takeover: takeover})
	w.must(err)
}

type testWriter struct{ t testing.TB }

func (t testWriter) Write(p []byte) (int, error) {
	if testing.Verbose() {
		fmt.Fprintf(os.Stderr, "%s", p)
	}
	return len(p), nil
}

// close unmounts cleanly.
func (w *world) close() {
	w.t.Helper()
	w.must(w.v.Close(context.Background()))
	w.must(w.db.Close())
}

// die leaves everything as the death of the process would: nothing is written any more.
func (w *world) die() {
	w.t.Helper()
	w.v.gate.close(context.Background())
	w.v.stop()
	w.v.wg.Wait()
	w.v.tree.Close()
	w.must(w.db.Close())
}

// told is the world's record of its newest snapshot, which comes once wait is closed.
type told struct {
	*world
	wait chan struct{}
}

// Each implements Recorded.
func (w told) Each(ctx context.Context, fn func(uint64, index.Ident) error) (bool, error) {
	if w.wait != nil {
		select {
		case <-w.wait:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	if w.sealed == nil {
		return false, nil
	}
	im := w.sealed
	if w.told != nil {
		im = w.told
	}
	for _, ino := range slices.Sorted(maps.Keys(im.inodes)) {
		t := im.inodes[ino].t
		err := fn(ino, index.Ident{Valid: true, Gen: t.Gen, Size: t.Size, CtimeSec: t.Ctime.Sec, CtimeNsec: t.Ctime.Nsec, BtimeSec: t.Btime.Sec, BtimeNsec: t.Btime.Nsec})
		if err != nil {
			return true, err
		}
	}
	return true, nil
}

func (w *world) barrier() *Ended {
	w.t.Helper()
	e, _, err := w.v.Barrier(context.Background())
	w.must(err)
	return e
}

// seal does what sealing does: it makes the image of e from that of the newest complete snapshot and e's dirty parts.
func (w *world) seal(e *Ended) (*image, error) {
	s := index.Snapshot{Epoch: e.Epoch()}
	if err := w.db.AddPending(&s); err != nil {
		return nil, err
	}
	e.SetID(s.ID)
	im, err := readImage(w.sealed, e)
	if err != nil {
		e.Release(false)
		return nil, errors.Join(err, w.db.Fail(s.ID, err.Error()))
	}
	if err := w.db.Complete(index.Commit{Snapshot: s}); err != nil {
		return nil, err
	}
	w.sealed = im
	e.Release(true)
	return im, nil
}

// inodeImage is one inode in an image; never changed.
type inodeImage struct {
	t      tree.Inode
	names  map[string]uint64
	blocks map[uint64][]byte
}

func readImage(parent *image, e *Ended) (*image, error) {
	ctx := context.Background()
	r := &imageReader{ctx: ctx, e: e, out: &image{map[uint64]*inodeImage{}}}
	if e.Full() || parent == nil {
		return r.out, r.all(e.Root())
	}
	r.out = parent.clone()
	var err error
	last := uint64(0)
	e.Dirty(func(d snapshot.DirtyInode) bool {
		if d.Ino <= last {
			err = fmt.Errorf("inode %d after %d", d.Ino, last)
			return false
		}
		last = d.Ino
		if err = r.one(d); err != nil {
			err = fmt.Errorf("inode %d: %w", d.Ino, err)
		}
		e.Done(d.Ino)
		return err == nil
	})
	return r.out, err
}

type imageReader struct {
	ctx context.Context
	e   *Ended
	out *image
}

func (r *imageReader) all(ino uint64) error {
	if r.out.inodes[ino] != nil {
		return nil
	}
	if err := r.one(snapshot.DirtyInode{Ino: ino, Content: true, AllNames: true, Fresh: true}); err != nil {
		return fmt.Errorf("inode %d: %w", ino, err)
	}
	defer r.e.Done(ino)
	if r.out.inodes[ino] == nil {
		return fmt.Errorf("inode %d has a name but isn't there", ino)
	}
	for _, c := range r.out.inodes[ino].names {
		if err := r.all(c); err != nil {
			return err
		}
	}
	return nil
}

func (r *imageReader) one(d snapshot.DirtyInode) error {
	t, err := r.e.Inode(r.ctx, d.Ino)
	if errors.Is(err, fs.ErrNotExist) {
		delete(r.out.inodes, d.Ino)
		return nil
	}
	if err != nil {
		return err
	}
	old := r.out.inodes[d.Ino]
	if old == nil && !d.Fresh && !d.Content {
		return fmt.Errorf("not fresh, but the parent doesn't have it (%+v)", t)
	}
	if old == nil || d.Fresh {
		old = &inodeImage{}
	}
	n := &inodeImage{t: t, names: maps.Clone(old.names), blocks: maps.Clone(old.blocks)}
	r.out.inodes[d.Ino] = n
	switch t.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return r.names(d, n)
	case syscall.S_IFREG:
		return r.content(d, n, old.t.Size)
	}
	return nil
}

func (r *imageReader) names(d snapshot.DirtyInode, n *inodeImage) error {
	if n.names == nil || d.AllNames {
		n.names = map[string]uint64{}
	}
	if d.AllNames {
		list, err := r.e.Entries(r.ctx, d.Ino)
		for _, x := range list {
			if n.names[x.Name] != 0 {
				return fmt.Errorf("%q twice", x.Name)
			}
			n.names[x.Name] = x.Ino
		}
		return err
	}
	for _, name := range d.Names {
		x, ok, err := r.e.Entry(r.ctx, d.Ino, name)
		if err != nil {
			return err
		}
		delete(n.names, name)
		if ok {
			n.names[name] = x.Ino
		}
	}
	return nil
}

func (r *imageReader) content(d snapshot.DirtyInode, n *inodeImage, oldSize int64) error {
	size := n.t.Size
	if n.blocks == nil || d.Content || d.Fresh {
		n.blocks = map[uint64][]byte{}
	}
	for b := range n.blocks {
		if int64(b)*blockSize >= size {
			delete(n.blocks, b)
		}
	}
	if d.Content || d.Fresh {
		for off := int64(0); ; {
			start, end, err := r.e.NextData(r.ctx, d.Ino, off)
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if start < off || end <= start {
				return fmt.Errorf("data from %d to %d, asked for after %d", start, end, off)
			}
			first, k := span(start, end-start)
			if err := r.read(d.Ino, n, first, k); err != nil {
				return err
			}
			off = end
		}
	}
	if size < oldSize && size > 0 {
		if err := r.read(d.Ino, n, uint64(size-1)/blockSize, 1); err != nil {
			return err
		}
	}
	if d.Runs == nil {
		return nil
	}
	var err error
	d.Runs(func(first, k uint64) bool {
		if end := uint64(size+blockSize-1) / blockSize; first+k > end {
			k = max(end, first) - first
		}
		err = r.read(d.Ino, n, first, k)
		return err == nil
	})
	return err
}

func (r *imageReader) read(ino uint64, n *inodeImage, first, k uint64) error {
	for ; k > 0; k-- {
		p := make([]byte, blockSize)
		if err := r.e.ReadAt(r.ctx, ino, p, int64(first)*blockSize); err != nil {
			return err
		}
		n.blocks[first] = p
		first++
	}
	return nil
}
