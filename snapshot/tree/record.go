package tree

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"graphvol/chunkstore"
)

// Extended attributes longer than XattrInlineMax bytes, all of an inode's together, lie in chunks of XattrChunk bytes.
const (
	XattrInlineMax = 512
	XattrChunk     = 512 << 10
)

// pathMax is Linux's bound of what a system call takes for a path, with the byte behind it. Filesystems have lower ones.
const pathMax = 4096

// Bounds of extended attributes: those of Linux, which lists at most 64 KiB of names, of 7 bytes ("user.x") at least.
const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrNames = 64 << 10 // with a byte behind each
	maxXattrs     = maxXattrNames/7*(maxXattrValue+16) + maxXattrNames
)

// Forms of extended attributes in an inode record.
const (
	xattrNone   = 0
	xattrInline = 1
	xattrChunks = 2
)

// EncodeInode gives an inode's record, and stores its extended attributes if they are long.
func EncodeInode(put Putter, in *Inode) ([]byte, error) {
	b := make([]byte, 0, 160)
	for _, v := range []uint32{in.Mode, in.UID, in.GID, in.Nlink} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = binary.AppendUvarint(b, in.Rdev)
	b = binary.LittleEndian.AppendUint64(b, in.Gen)
	b = binary.AppendUvarint(b, uint64(in.Size))
	b = binary.AppendUvarint(b, in.Blocks)
	for _, t := range []Time{in.Mtime, in.Ctime, in.Btime} {
		b = appendSvarint(b, t.Sec)
		b = binary.AppendUvarint(b, uint64(t.Nsec))
	}
	b = appendBytes(b, in.Target)
	b, err := appendXattrs(b, put, in.Xattrs)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", in.Ino, err)
	}
	return in.Content.appendTo(b), nil
}

func appendXattrs(b []byte, put Putter, xattrs []Xattr) ([]byte, error) {
	if len(xattrs) == 0 {
		return append(b, xattrNone), nil
	}
	sorted := slices.SortedFunc(slices.Values(xattrs), func(x, y Xattr) int { return strings.Compare(x.Name, y.Name) })
	list := binary.AppendUvarint(nil, uint64(len(sorted)))
	for _, x := range sorted {
		list = appendBytes(appendBytes(list, x.Name), x.Value)
	}
	if len(list) <= XattrInlineMax {
		return append(append(b, xattrInline), list...), nil
	}
	b = append(b, xattrChunks)
	b = binary.AppendUvarint(b, uint64(len(list)))
	for piece := range slices.Chunk(list, XattrChunk) {
		id, err := put.Put(piece)
		if err != nil {
			return nil, fmt.Errorf("store extended attributes: %w", err)
		}
		b = append(b, id[:]...)
	}
	return b, nil
}

// Record is a decoded inode record. Inode.Xattrs is empty if they lie in XattrChunks.
type Record struct {
	Inode
	XattrBytes  uint64
	XattrChunks []chunkstore.ID
}

// DecodeRecord decodes an inode record; extended attributes that lie in chunks aren't read.
func DecodeRecord(ino uint64, p []byte) (Record, error) {
	d := &decoder{p: p}
	r := Record{Inode: Inode{Ino: ino}}
	r.Mode, r.UID, r.GID, r.Nlink = d.uint32(), d.uint32(), d.uint32(), d.uint32()
	r.Rdev = d.uvarint()
	r.Gen = d.uint64()
	r.Size = d.size()
	r.Blocks = d.uvarint()
	r.Mtime, r.Ctime, r.Btime = d.time(), d.time(), d.time()
	r.Target = string(d.bytes(d.uvarint()))
	switch form := d.byte(); form {
	case xattrNone:
	case xattrInline:
		before := len(d.p)
		r.Xattrs = d.xattrs()
		if n := before - len(d.p); d.err == nil && n > XattrInlineMax {
			d.fail("%d bytes of inlined extended attributes", n)
		}
	case xattrChunks:
		d.xattrChunks(&r)
	default:
		d.fail("extended attributes of unknown form %d", form)
	}
	r.Content = d.ref()
	d.possible(&r.Inode)
	if err := d.end(); err != nil {
		return Record{}, fmt.Errorf("inode %d: %w", ino, err)
	}
	return r, nil
}

// possible refuses what no file of Linux can be.
func (d *decoder) possible(in *Inode) {
	switch in.Mode & ModeType {
	case ModeSocket, ModeSymlink, ModeRegular, ModeBlock, ModeDir, ModeChar, ModeFIFO:
	default:
		d.fail("file of unknown type: mode %o", in.Mode)
	}
	if in.Mode&^(ModeType|0o7777) != 0 {
		d.fail("mode %o", in.Mode)
	}
	if in.IsSymlink() && in.Target == "" || len(in.Target) >= pathMax || strings.Contains(in.Target, "\x00") {
		d.fail("link target of %d bytes", len(in.Target))
	}
}

func (d *decoder) xattrChunks(r *Record) {
	r.XattrBytes = d.uvarint()
	if r.XattrBytes <= XattrInlineMax || r.XattrBytes > maxXattrs || r.XattrBytes > uint64(len(d.p))*XattrChunk {
		d.fail("%d bytes of extended attributes", r.XattrBytes)
		return
	}
	for range (r.XattrBytes + XattrChunk - 1) / XattrChunk {
		r.XattrChunks = append(r.XattrChunks, d.id())
	}
}

func (d *decoder) time() Time {
	t := Time{Sec: d.svarint(), Nsec: d.uint32()}
	if t.Nsec >= 1e9 {
		d.fail("time with %d nanoseconds", t.Nsec)
	}
	return t
}

func (d *decoder) xattrs() []Xattr {
	n := d.uvarint()
	if n == 0 || n > uint64(len(d.p)) {
		d.fail("list of %d extended attributes", n)
		return nil
	}
	out, before := make([]Xattr, 0, n), ""
	for range n {
		x := d.xattr(before)
		if d.err != nil {
			return nil
		}
		out, before = append(out, x), x.Name
	}
	return out
}

// xattr reads the extended attribute that follows the one called before, "" for the first.
func (d *decoder) xattr(before string) Xattr {
	x := Xattr{Name: string(d.bytes(d.uvarint()))}
	x.Value = d.bytes(d.uvarint())
	switch {
	case x.Name == "" || len(x.Name) > maxXattrName || strings.Contains(x.Name, "\x00"):
		d.fail("extended attribute with a name of %d bytes", len(x.Name))
	case len(x.Value) > maxXattrValue:
		d.fail("extended attribute of %d bytes", len(x.Value))
	case x.Name <= before:
		d.fail("extended attributes are out of order")
	}
	return x
}

// NameKey is the key of a name in a directory.
func NameKey(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])
}

// DirEntry gives the map entry of a name.
func DirEntry(d Dirent) Entry {
	return Entry{Key: NameKey(d.Name), Name: d.Name, Value: append(binary.AppendUvarint(nil, d.Ino), d.Type)}
}

// DecodeDirent decodes the map entry of a name.
func DecodeDirent(e Entry) (Dirent, error) {
	d := &decoder{p: e.Value}
	de := Dirent{Name: e.Name, Ino: d.uvarint(), Type: d.byte()}
	if len(e.Name) >= pathMax || e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") {
		d.fail("directory entry with the name %.100q, of %d bytes", e.Name, len(e.Name))
	}
	return de, d.end()
}

// Root is a snapshot's root record.
type Root struct {
	Ino    uint64 // of the root directory
	Files  int64  // regular files, however many links they have
	Bytes  int64  // sum of their sizes
	Inodes Ref    // the inode table
}

// Encode gives the root record's bytes, whose SHA-256 is the snapshot's checksum.
func (r *Root) Encode() []byte {
	b := []byte{version, kindRoot}
	b = binary.AppendUvarint(b, r.Ino)
	b = binary.AppendUvarint(b, uint64(r.Files))
	b = binary.AppendUvarint(b, uint64(r.Bytes))
	return r.Inodes.appendTo(b)
}

// DecodeRoot decodes a root record.
func DecodeRoot(p []byte) (Root, error) {
	d := &decoder{p: p}
	if k := d.header(); d.err == nil && k != kindRoot {
		d.fail("not a root record but kind %d", k)
	}
	r := Root{Ino: d.uvarint(), Files: d.size(), Bytes: d.size()}
	r.Inodes = d.ref()
	return r, d.end()
}
