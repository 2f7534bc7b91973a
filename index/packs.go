package index

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"go.etcd.io/bbolt"

	"graphvol/chunkstore"
)

// packTable gives packs short numbers, so that a chunk's row doesn't repeat the pack's 16 bytes. It is the bucket "packs"
// in memory. A pack is entered before its rows are committed, and its number is understood even after it was
// forgotten, so that a reader finds the packs of whatever transaction it sees. Numbers are used once.
type packTable struct {
	mu struct {
		sync.RWMutex
		byNum map[uint32]chunkstore.PackID
		byID  map[chunkstore.PackID]uint32
	}
}

const packRowLen = 16 + 8 // id, number of chunks

func (t *packTable) load(tx *bbolt.Tx) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.byNum = make(map[uint32]chunkstore.PackID)
	t.mu.byID = make(map[chunkstore.PackID]uint32)
	b, most := tx.Bucket([]byte(bucketPacks)), uint32(0)
	err := b.ForEach(func(k, v []byte) error {
		num, id, _, err := decodePack(k, v)
		if err != nil {
			return err
		}
		t.mu.byNum[num], t.mu.byID[id] = id, num
		most = num // they ascend
		return nil
	})
	if seq := b.Sequence(); err == nil && (seq < uint64(most) || seq > math.MaxUint32) {
		return corrupt("packs", fmt.Sprintf("the last number that was given is %d, and %d is in use", seq, most), nil)
	}
	return err
}

func decodePack(k, v []byte) (num uint32, id chunkstore.PackID, chunks uint64, err error) {
	if len(k) != 4 || len(v) != packRowLen {
		return 0, id, 0, corrupt("packs", fmt.Sprintf("row %.32x is malformed", k), nil)
	}
	copy(id[:], v)
	return binary.BigEndian.Uint32(k), id, binary.BigEndian.Uint64(v[16:]), nil
}

func (t *packTable) id(num uint32) (chunkstore.PackID, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	id, ok := t.mu.byNum[num]
	return id, ok
}

func (t *packTable) num(id chunkstore.PackID) (uint32, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	num, ok := t.mu.byID[id]
	return num, ok
}

func (t *packTable) add(num uint32, id chunkstore.PackID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.byNum[num], t.mu.byID[id] = id, num
}

func (t *packTable) forget(ids []chunkstore.PackID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		delete(t.mu.byID, id)
	}
}

// decode reads the value of a chunk's row.
func (t *packTable) decode(v []byte) (loc chunkstore.Location, num uint32, err error) {
	num, loc, err = decodeLocation(v)
	if err != nil {
		return loc, num, err
	}
	id, ok := t.id(num)
	if !ok {
		return loc, num, fmt.Errorf("unknown pack %d", num)
	}
	loc.Pack = id
	return loc, num, nil
}

// appendLocation is the value of a chunk's row: four numbers of one to five bytes each.
func appendLocation(dst []byte, num uint32, loc chunkstore.Location) []byte {
	for _, n := range [4]uint32{num, loc.Offset, loc.Length, loc.RawLen} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

func decodeLocation(v []byte) (num uint32, loc chunkstore.Location, err error) {
	r := reader{p: v}
	num, loc.Offset, loc.Length, loc.RawLen = r.uvarint32(), r.uvarint32(), r.uvarint32(), r.uvarint32()
	if r.err == nil && len(r.p) > 0 {
		r.err = fmt.Errorf("%d bytes left over", len(r.p))
	}
	return num, loc, r.err
}

// chunkTx changes chunks and packs in one write transaction and keeps the packs' counts right.
type chunkTx struct {
	tx            *bbolt.Tx
	table         *packTable
	chunks, packs *bbolt.Bucket
	added         []chunkstore.PackID
	removed       []chunkstore.PackID
	delta         map[uint32]int64 // change of the number of chunks, by pack number
	val           []byte
}

func newChunkTx(tx *bbolt.Tx, t *packTable) *chunkTx {
	c := &chunkTx{
		tx: tx, table: t, chunks: tx.Bucket([]byte(bucketChunks)), packs: tx.Bucket([]byte(bucketPacks)),
		delta: make(map[uint32]int64),
	}
	c.chunks.FillPercent = chunkFill
	return c
}

// packNum returns the number of a pack, a new one if it has none.
func (c *chunkTx) packNum(id chunkstore.PackID) (uint32, error) {
	if num, ok := c.table.num(id); ok {
		return num, nil
	}
	seq, err := c.packs.NextSequence()
	if err != nil {
		return 0, err
	}
	num := uint32(seq)
	if uint64(num) != seq {
		return 0, fmt.Errorf("no pack numbers left: %d were used", seq-1)
	}
	row := append(make([]byte, 0, packRowLen), id[:]...)
	if err := c.packs.Put(binary.BigEndian.AppendUint32(nil, num), append(row, make([]byte, 8)...)); err != nil {
		return 0, err
	}
	c.added = append(c.added, id)
	c.table.add(num, id)
	return num, nil
}

// put writes the row of a chunk, in place of the one it may have.
func (c *chunkTx) put(l *chunkstore.Located) error {
	num, err := c.packNum(l.Pack)
	if err != nil {
		return err
	}
	if err := c.forget(l.ID); err != nil {
		return err
	}
	c.delta[num]++
	// The bucket keeps the value until the commit, so each needs its own memory: take it from blocks of many.
	if cap(c.val)-len(c.val) < 20 {
		c.val = make([]byte, 0, 8<<10)
	}
	start := len(c.val)
	c.val = appendLocation(c.val, num, l.Location)
	return c.chunks.Put(l.ID[:], c.val[start:len(c.val):len(c.val)])
}

// forget takes the row of a chunk, if there is one, off its pack's count.
func (c *chunkTx) forget(id chunkstore.ID) error {
	old := c.chunks.Get(id[:])
	if old == nil {
		return nil
	}
	num, _, err := decodeLocation(old)
	if err != nil {
		return corrupt("chunks", "row of "+id.String(), err)
	}
	c.delta[num]--
	return nil
}

func (c *chunkTx) drop(id chunkstore.ID) error {
	if err := c.forget(id); err != nil {
		return err
	}
	return c.chunks.Delete(id[:])
}

// removePack forgets a pack that has no chunks any more. flush must have been called.
func (c *chunkTx) removePack(id chunkstore.PackID) error {
	num, ok := c.table.num(id)
	if !ok {
		return nil
	}
	key := binary.BigEndian.AppendUint32(nil, num)
	_, _, n, err := decodePack(key, c.packs.Get(key))
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("pack %s has %d chunks: %w", id, n, ErrPackInUse)
	}
	c.removed = append(c.removed, id)
	return c.packs.Delete(key)
}

// flush writes the packs' counts.
func (c *chunkTx) flush() error {
	for num, d := range c.delta {
		key := binary.BigEndian.AppendUint32(nil, num)
		_, id, n, err := decodePack(key, c.packs.Get(key))
		if err != nil {
			return err
		}
		if d < 0 && n < uint64(-d) {
			return corrupt("packs", fmt.Sprintf("pack %s is said to have %d chunks, and loses %d", id, n, -d), nil)
		}
		row := append(make([]byte, 0, packRowLen), id[:]...)
		if err := c.packs.Put(key, binary.BigEndian.AppendUint64(row, n+uint64(d))); err != nil {
			return err
		}
	}
	clear(c.delta)
	return nil
}

// end is called after the transaction, before the next one begins.
func (c *chunkTx) end(committed bool) {
	if committed {
		c.table.forget(c.removed)
	} else {
		c.table.forget(c.added)
	}
}
