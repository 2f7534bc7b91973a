package tree

import (
	"encoding/binary"
	"math/bits"
	"strings"
)

// Bounds of a leaf; see the package documentation.
const (
	MaxLeaf      = 64
	MaxLeafBytes = 64 << 10
)

const (
	digitBits = 6
	maxLevel  = 10
)

// Entry is one entry of a map. Name and Value are not to be written to.
type Entry struct {
	Key   uint64
	Name  string
	Value []byte
}

// compare orders entries by key, then name.
func (e *Entry) compare(key uint64, name string) int {
	switch {
	case e.Key < key:
		return -1
	case e.Key > key:
		return 1
	}
	return strings.Compare(e.Name, name)
}

// node is a decoded node: a leaf if entries isn't empty.
type node struct {
	entries []Entry
	// A branch has the keys of [lo, hi], and a child for each bit of bitmap.
	level    int
	lo, hi   uint64
	bitmap   uint64
	children []Ref
	bytes    int // memory it takes, roughly
}

func (n *node) isLeaf() bool { return n.entries != nil }

// child gives the child for a key; false if there is none.
func (n *node) child(key uint64) (Ref, bool) {
	if key < n.lo || key > n.hi {
		return Ref{}, false
	}
	bit := uint64(1) << digit(key, n.level)
	if n.bitmap&bit == 0 {
		return Ref{}, false
	}
	return n.children[bits.OnesCount64(n.bitmap&(bit-1))], true
}

func digit(key uint64, level int) uint { return uint(key>>(digitBits*level)) & 63 }

// span is the range of keys that share all digits above level with key.
func span(key uint64, level int) (lo, hi uint64) {
	if level >= maxLevel {
		return 0, ^uint64(0)
	}
	mask := uint64(1)<<(digitBits*(level+1)) - 1
	return key &^ mask, key | mask
}

// childSpan is the range of the keys of a branch's child.
func (n *node) childSpan(d uint) (lo, hi uint64) {
	return span(n.lo|uint64(d)<<(digitBits*n.level), n.level-1)
}

// splitLevel is the highest digit in which two different keys differ.
func splitLevel(a, b uint64) int { return (bits.Len64(a^b) - 1) / digitBits }

func leafSize(entries []Entry) int {
	n := 2 + binary.MaxVarintLen16
	for i := range entries {
		n += 2*binary.MaxVarintLen32 + len(entries[i].Name) + len(entries[i].Value) // keys: see leafFits
	}
	return n
}

// leafFits tells whether entries are one leaf rather than a branch.
func leafFits(entries []Entry) bool {
	if entries[0].Key == entries[len(entries)-1].Key {
		return true
	}
	if len(entries) > MaxLeaf {
		return false
	}
	// The estimate is generous, and encoding is only needed near the bound.
	return leafSize(entries)+10*MaxLeaf <= MaxLeafBytes || len(encodeLeaf(nil, entries)) <= MaxLeafBytes
}

func encodeLeaf(b []byte, entries []Entry) []byte {
	kind := byte(kindLeaf)
	for i := range entries {
		if entries[i].Name != "" {
			kind = kindNamed
			break
		}
	}
	b = append(b, version, kind)
	b = binary.AppendUvarint(b, uint64(len(entries)))
	prev := uint64(0)
	for i := range entries {
		e := &entries[i]
		b = binary.AppendUvarint(b, e.Key-prev)
		prev = e.Key
		if kind == kindNamed {
			b = appendBytes(b, e.Name)
		}
		b = appendBytes(b, e.Value)
	}
	return b
}

func encodeBranch(b []byte, level int, key, bitmap uint64, children []Ref) []byte {
	b = append(b, version, kindBranch, byte(level))
	prefix := uint64(0)
	if level < maxLevel {
		prefix = key >> (digitBits * (level + 1))
	}
	b = binary.AppendUvarint(b, prefix)
	b = binary.LittleEndian.AppendUint64(b, bitmap)
	for _, c := range children {
		b = c.appendTo(b)
	}
	return b
}

// decodeNode decodes a node that has count entries in and below it. The node keeps p.
func decodeNode(p []byte, count uint64) (*node, error) {
	d := &decoder{p: p}
	n := &node{bytes: len(p) + 128}
	switch kind := d.header(); kind {
	case kindLeaf, kindNamed:
		d.leaf(n, kind == kindNamed)
		if d.err == nil && uint64(len(n.entries)) != count {
			d.fail("leaf of %d entries, expected %d", len(n.entries), count)
		}
	case kindBranch:
		d.branch(n, count)
	default:
		d.fail("node of unknown kind %d", kind)
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return n, nil
}

func (d *decoder) leaf(n *node, named bool) {
	count := d.uvarint()
	if count == 0 || count > uint64(len(d.p)) {
		d.fail("leaf of %d entries", count)
		return
	}
	n.entries = make([]Entry, 0, count)
	n.bytes += int(count) * 48
	hasName := false
	for range count {
		var e Entry
		delta := d.uvarint()
		e.Key = delta
		if named {
			e.Name = string(d.bytes(d.uvarint()))
			n.bytes += len(e.Name)
			hasName = hasName || e.Name != ""
		}
		e.Value = d.bytes(d.uvarint())
		if k := len(n.entries); k > 0 {
			prev := &n.entries[k-1]
			e.Key += prev.Key
			if e.Key < delta || prev.compare(e.Key, e.Name) >= 0 {
				d.fail("entries are out of order")
			}
		}
		if d.err != nil {
			return
		}
		n.entries = append(n.entries, e)
	}
	if named != hasName {
		d.fail("leaf is of the wrong kind")
		return
	}
	if !leafFits(n.entries) {
		d.fail("leaf is too large")
	}
}

func (d *decoder) branch(n *node, count uint64) {
	n.level = int(d.byte())
	prefix := d.uvarint()
	n.bitmap = d.uint64()
	if n.level > maxLevel || n.level == maxLevel && (prefix != 0 || n.bitmap>>16 != 0) {
		d.fail("branch at level %d with prefix %d", n.level, prefix)
		return
	}
	if n.level < maxLevel {
		shift := digitBits * (n.level + 1)
		if prefix<<shift>>shift != prefix {
			d.fail("branch prefix %d is out of range", prefix)
			return
		}
		n.lo = prefix << shift
	}
	n.lo, n.hi = span(n.lo, n.level)
	k := bits.OnesCount64(n.bitmap)
	if k < 2 {
		d.fail("branch with %d children", k)
		return
	}
	n.children = make([]Ref, k)
	n.bytes += k * 80
	total, left := uint64(0), n.bitmap
	for i := range n.children {
		c := d.ref()
		c.under, c.first = uint8(n.level+1), n.lo|uint64(bits.TrailingZeros64(left))<<(digitBits*n.level)
		left &= left - 1
		n.children[i] = c
		if total += c.Count; c.Count == 0 || total < c.Count {
			d.fail("branch with a child of %d entries", c.Count)
			return
		}
	}
	if total != count {
		d.fail("branch of %d entries, expected %d", total, count)
	}
}
