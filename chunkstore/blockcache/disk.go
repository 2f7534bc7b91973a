package blockcache

import (
	"cmp"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const defaultDisk = 1 << 30

// disk keeps blocks in files, as form says. Nothing is synced: what a power cut leaves behind doesn't match.
type disk struct {
	dir   string
	limit int64
	form  form
	mu    struct {
		sync.Mutex
		files map[string]int64 // sizes by name
		order []string         // oldest first; some may be gone
		bytes int64
	}
}

func openDisk(dir string, limit int64, seal cipher.AEAD) (*disk, error) {
	if limit <= 0 {
		limit = defaultDisk
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d := &disk{dir: dir, limit: limit, form: form{seal}}
	d.mu.files = make(map[string]int64)
	return d, d.load()
}

// load finds the blocks that an earlier process has left, and removes what one that was killed has begun, and blocks of the other form.
func (d *disk) load() error {
	list, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	when := make(map[string]time.Time)
	for _, e := range list {
		st, err := e.Info()
		if err != nil {
			continue // gone meanwhile
		}
		if !strings.HasSuffix(e.Name(), d.form.suffix()) {
			os.Remove(filepath.Join(d.dir, e.Name()))
			continue
		}
		d.mu.files[e.Name()] = st.Size()
		d.mu.bytes += st.Size()
		d.mu.order = append(d.mu.order, e.Name())
		when[e.Name()] = st.ModTime()
	}
	slices.SortFunc(d.mu.order, func(a, b string) int { return cmp.Or(when[a].Compare(when[b]), strings.Compare(a, b)) })
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trimLocked()
	return nil
}

// fileOf names a block's file.
func (d *disk) fileOf(key blockKey) string {
	sum := sha256.Sum256(key.bytes())
	return hex.EncodeToString(sum[:16]) + d.form.suffix()
}

func (k blockKey) bytes() []byte {
	return binary.LittleEndian.AppendUint64([]byte(k.object), uint64(k.block))
}

// has tells whether a block seems to be there. d may be nil.
func (d *disk) has(key blockKey) bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.mu.files[d.fileOf(key)]
	return ok
}

// get returns a block of a length; nil: it isn't there. d may be nil.
func (d *disk) get(key blockKey, length int64) []byte {
	if d == nil {
		return nil
	}
	name := d.fileOf(key)
	d.mu.Lock()
	size, ok := d.mu.files[name]
	d.mu.Unlock()
	if !ok {
		return nil
	}
	p, err := os.ReadFile(filepath.Join(d.dir, name))
	if err == nil && int64(len(p)) == size {
		if data, ok := d.form.decode(key, p, length); ok {
			return data
		}
	}
	d.remove(name)
	return nil
}

// put keeps a block. A disk that can't is none: the block is read again then. d may be nil.
func (d *disk) put(key blockKey, data []byte) {
	if d == nil {
		return
	}
	name, p := d.fileOf(key), d.form.encode(key, data)
	tmp, err := os.CreateTemp(d.dir, "new-*")
	if err != nil {
		return
	}
	_, err = tmp.Write(p)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(d.dir, name))
	}
	if err != nil {
		os.Remove(tmp.Name())
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.mu.files[name]; !ok {
		d.mu.order = append(d.mu.order, name)
		d.mu.files[name] = int64(len(p))
		d.mu.bytes += int64(len(p))
	}
	d.trimLocked()
}

func (d *disk) remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.removeLocked(name)
}

func (d *disk) removeLocked(name string) {
	d.mu.bytes -= d.mu.files[name]
	delete(d.mu.files, name)
	os.Remove(filepath.Join(d.dir, name))
}

// trimLocked removes the oldest blocks beyond the limit.
func (d *disk) trimLocked() {
	for d.mu.bytes > d.limit && len(d.mu.order) > 1 {
		d.removeLocked(d.mu.order[0])
		d.mu.order = d.mu.order[1:]
	}
}
