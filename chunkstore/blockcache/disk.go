package blockcache

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	defaultDisk = 1 << 30
	suffix      = ".block"
)

// disk keeps blocks in files: the block, and the CRC-32C of its key and it. Nothing is synced: what a power cut leaves behind doesn't match.
type disk struct {
	dir   string
	limit int64
	mu    struct {
		sync.Mutex
		files map[string]int64 // sizes by name
		order []string         // oldest first; some may be gone
		bytes int64
	}
}

func openDisk(dir string, limit int64) (*disk, error) {
	if limit <= 0 {
		limit = defaultDisk
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d := &disk{dir: dir, limit: limit}
	d.mu.files = make(map[string]int64)
	return d, d.load()
}

// load finds the blocks that an earlier process has left, and removes what one that was killed has begun.
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
		if !strings.HasSuffix(e.Name(), suffix) {
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

func fileOf(key blockKey) string {
	sum := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(key.object), uint64(key.block)))
	return hex.EncodeToString(sum[:16]) + suffix
}

func sumOf(key blockKey, data []byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Checksum(binary.LittleEndian.AppendUint64([]byte(key.object), uint64(key.block)), table)
	return binary.LittleEndian.AppendUint32(nil, crc32.Update(sum, table, data))
}

// has tells whether a block seems to be there. d may be nil.
func (d *disk) has(key blockKey) bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.mu.files[fileOf(key)]
	return ok
}

// get returns a block of a length; nil: it isn't there. d may be nil.
func (d *disk) get(key blockKey, length int64) []byte {
	if d == nil {
		return nil
	}
	name := fileOf(key)
	d.mu.Lock()
	size, ok := d.mu.files[name]
	d.mu.Unlock()
	if !ok {
		return nil
	}
	p, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil || int64(len(p)) != size || size != length+4 || string(p[length:]) != string(sumOf(key, p[:length])) {
		d.remove(name)
		return nil
	}
	return p[:length:length]
}

// put keeps a block. A disk that can't is none: the block is read again then. d may be nil.
func (d *disk) put(key blockKey, data []byte) {
	if d == nil {
		return
	}
	name := fileOf(key)
	tmp, err := os.CreateTemp(d.dir, "new-*")
	if err != nil {
		return
	}
	_, err = tmp.Write(append(slices.Clip(data), sumOf(key, data)...))
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
		d.mu.files[name] = int64(len(data)) + 4
		d.mu.bytes += int64(len(data)) + 4
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
