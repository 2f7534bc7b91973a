package index

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"graphvol/chunkstore"
)

// Versions of single records. A record is its version (1 byte), a payload, and the CRC-32C of both (4 bytes, little endian).
const (
	snapshotVersion = 1
	dirtyVersion    = 1
)

var errShort = errors.New("cut short")

func checksum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

// frame makes a record of a payload that was built behind the version byte.
func frame(p []byte) []byte { return binary.LittleEndian.AppendUint32(p, checksum(p)) }

// unframe returns the payload of a record.
func unframe(p []byte, version byte) ([]byte, error) {
	if len(p) < 5 {
		return nil, errShort
	}
	body := p[:len(p)-4]
	if checksum(body) != binary.LittleEndian.Uint32(p[len(body):]) {
		return nil, errors.New("wrong checksum")
	}
	if body[0] != version {
		return nil, fmt.Errorf("record of version %d, this software reads version %d: %w", body[0], version, ErrNewerFormat)
	}
	return body[1:], nil
}

// snapshotJSON is a Snapshot as stored; JSON, so that fields can be added and people can read it.
type snapshotJSON struct {
	ID          string    `json:"id"`
	Name        string    `json:"name,omitempty"`
	Seq         uint64    `json:"seq"`
	Parent      string    `json:"parent,omitempty"`
	Kind        string    `json:"kind,omitempty"`
	State       string    `json:"state"`
	Created     time.Time `json:"created"`
	PauseNS     int64     `json:"pause_ns,omitempty"`
	SealNS      int64     `json:"seal_ns,omitempty"`
	Files       int64     `json:"files,omitempty"`
	Bytes       int64     `json:"bytes,omitempty"`
	DirtyBytes  int64     `json:"dirty_bytes,omitempty"`
	StoredBytes int64     `json:"stored_bytes,omitempty"`
	Root        string    `json:"root,omitempty"`
	Manifest    string    `json:"manifest_sha256,omitempty"`
	Epoch       uint64    `json:"epoch,omitempty"`
	Error       string    `json:"error,omitempty"`
	Hold        string    `json:"hold,omitempty"`
	Tags        []string  `json:"tags,omitempty"`
}

func encodeSnapshot(s *Snapshot) ([]byte, error) {
	j := snapshotJSON{
		ID: s.ID, Name: s.Name, Seq: s.Seq, Parent: s.Parent, Kind: s.Kind, State: s.State, Created: s.Created,
		PauseNS: s.PauseNS, SealNS: s.SealNS, Files: s.Files, Bytes: s.Bytes, DirtyBytes: s.DirtyBytes,
		StoredBytes: s.StoredBytes, Manifest: s.ManifestSHA256, Epoch: s.Epoch, Error: s.Error, Hold: s.Hold, Tags: s.Tags,
	}
	if s.Root != (chunkstore.ID{}) {
		j.Root = s.Root.String()
	}
	p, err := json.Marshal(&j)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s.ID, err)
	}
	return frame(append([]byte{snapshotVersion}, p...)), nil
}

func decodeSnapshot(rec []byte) (s Snapshot, err error) {
	p, err := unframe(rec, snapshotVersion)
	if err != nil {
		return s, err
	}
	return decodeSnapshotPayload(p)
}

func decodeSnapshotPayload(p []byte) (s Snapshot, err error) {
	var j snapshotJSON
	if err := json.Unmarshal(p, &j); err != nil {
		return s, err
	}
	switch j.State {
	case StatePending, StateComplete, StateFailed:
	default:
		return s, fmt.Errorf("state %q", j.State)
	}
	if j.ID == "" || j.Seq == 0 {
		return s, errors.New("no id or number")
	}
	s = Snapshot{
		ID: j.ID, Name: j.Name, Seq: j.Seq, Parent: j.Parent, Kind: j.Kind, State: j.State, Created: j.Created,
		PauseNS: j.PauseNS, SealNS: j.SealNS, Files: j.Files, Bytes: j.Bytes, DirtyBytes: j.DirtyBytes,
		StoredBytes: j.StoredBytes, ManifestSHA256: j.Manifest, Epoch: j.Epoch, Error: j.Error, Hold: j.Hold, Tags: j.Tags,
	}
	if j.Root != "" {
		s.Root, err = chunkstore.ParseID(j.Root)
	}
	return s, err
}

// encodeDirty appends the record of d, without its inode number, which is the key.
func encodeDirty(dst []byte, d *Dirty) ([]byte, error) {
	start := len(dst)
	dst = append(dst, dirtyVersion)
	dst = binary.AppendUvarint(dst, d.Gen)
	dst = binary.AppendUvarint(dst, uint64(d.Flags))
	dst = binary.AppendUvarint(dst, d.Parent)
	dst = appendString(dst, d.Name)
	dst = appendIdent(dst, d.Ident)
	dst = binary.AppendUvarint(dst, uint64(len(d.Names)))
	for _, n := range d.Names {
		dst = appendString(dst, n)
	}
	if d.Blocks != nil && !d.Blocks.IsEmpty() {
		b, err := d.Blocks.ToBytes()
		if err != nil {
			return nil, fmt.Errorf("dirty blocks of inode %d: %w", d.Ino, err)
		}
		dst = append(dst, b...)
	}
	return binary.LittleEndian.AppendUint32(dst, checksum(dst[start:])), nil
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendIdent(dst []byte, id Ident) []byte {
	if !id.Valid {
		return append(dst, 0)
	}
	dst = append(dst, 1)
	dst = binary.AppendUvarint(dst, id.Gen)
	dst = binary.AppendVarint(dst, id.Size)
	dst = binary.AppendVarint(dst, id.CtimeSec)
	dst = binary.AppendUvarint(dst, uint64(id.CtimeNsec))
	dst = binary.AppendVarint(dst, id.BtimeSec)
	return binary.AppendUvarint(dst, uint64(id.BtimeNsec))
}

func decodeDirty(ino uint64, rec []byte) (*Dirty, error) {
	p, err := unframe(rec, dirtyVersion)
	if err != nil {
		return nil, err
	}
	return decodeDirtyPayload(ino, p)
}

func decodeDirtyPayload(ino uint64, p []byte) (*Dirty, error) {
	r := reader{p: p}
	d := &Dirty{Ino: ino, Gen: r.uvarint(), Flags: DirtyFlags(r.uvarint32()), Parent: r.uvarint(), Name: r.string()}
	if r.byte() != 0 {
		d.Ident = Ident{
			Valid: true, Gen: r.uvarint(), Size: r.varint(),
			CtimeSec: r.varint(), CtimeNsec: r.uvarint32(), BtimeSec: r.varint(), BtimeNsec: r.uvarint32(),
		}
	}
	n := r.uvarint()
	if n > uint64(len(r.p)) { // every name takes a byte at least
		return nil, errShort
	}
	if n > 0 && r.err == nil {
		d.Names = make([]string, n)
	}
	for i := range d.Names {
		d.Names[i] = r.string()
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(r.p) > 0 {
		var err error
		if d.Blocks, err = decodeBitmap(r.p); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// decodeBitmap reads a bitmap that takes exactly p.
func decodeBitmap(p []byte) (*roaring.Bitmap, error) {
	bm := roaring.New()
	n, err := bm.ReadFrom(bytes.NewReader(p))
	if err != nil {
		return nil, fmt.Errorf("dirty blocks: %w", err)
	}
	if n != int64(len(p)) {
		return nil, errors.New("dirty blocks: bytes left over")
	}
	if err := bm.Validate(); err != nil {
		return nil, fmt.Errorf("dirty blocks: %w", err)
	}
	return bm, nil
}

// reader takes values off a payload. After the first error, which is kept, all values are zero.
type reader struct {
	p   []byte
	err error
}

func (r *reader) fail() {
	r.p = nil
	if r.err == nil {
		r.err = errShort
	}
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.p)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.p = r.p[n:]
	return v
}

func (r *reader) uvarint32() uint32 {
	v := r.uvarint()
	if v > 1<<32-1 {
		r.fail()
		return 0
	}
	return uint32(v)
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.p)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.p = r.p[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.p) == 0 {
		r.fail()
		return 0
	}
	b := r.p[0]
	r.p = r.p[1:]
	return b
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.p)) {
		r.fail()
		return ""
	}
	s := string(r.p[:n])
	r.p = r.p[n:]
	return s
}
