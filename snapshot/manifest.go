package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"graphvol/chunkstore"
	"graphvol/chunkstore/target"
	"graphvol/index"
)

// ManifestVersion is the format_version that this software writes, and the greatest that it reads.
const ManifestVersion = 1

// MaxManifest is the greatest length of a manifest, in bytes.
const MaxManifest = 1 << 20

// ManifestPrefix begins the names of all manifests' objects.
const ManifestPrefix = "manifests/"

// ClusterPrefix begins the names of the manifests of a cluster's snapshots, which package agent/cluster describes. To everything here they are bytes.
const ClusterPrefix = "clusters/"

const manifestSuffix = ".json"

// Manifest describes a snapshot. It is an object of its own in the target, manifests/<id>.json: JSON in the order of the
// fields here, indented by two spaces, with a newline at the end. Its SHA-256 is in the catalogue and in the manifest of the next
// snapshot; so the manifests are a chain, and each names the root of a tree of hashes.
type Manifest struct {
	FormatVersion        int       `json:"format_version"`
	SnapshotID           string    `json:"snapshot_id"`
	Name                 string    `json:"name"`
	Tags                 []string  `json:"tags,omitempty"`         // ascending
	Parent               string    `json:"parent"`                 // id of the complete snapshot before; empty for the first
	ParentManifestSHA256 string    `json:"parent_manifest_sha256"` // empty for the first
	Created              time.Time `json:"created"`                // of the barrier, UTC
	ChecksumSHA256       string    `json:"checksum_sha256"`        // of the root record, and so of everything
	NodeTopology         Topology  `json:"node_topology"`
	Volume               string    `json:"volume"` // the volume's id
	Kind                 string    `json:"kind"`   // full or incremental
	Files                int64     `json:"files"`
	Bytes                int64     `json:"bytes"`
	DirtyBytes           int64     `json:"dirty_bytes"`
	StoredBytes          int64     `json:"stored_bytes"` // packs and this manifest
}

// Topology is where the snapshot's data comes from.
type Topology struct {
	Nodes []TopologyNode `json:"nodes"`
}

// TopologyNode is one node of a Topology.
type TopologyNode struct {
	Name string `json:"name"`
}

// Encode gives the manifest's bytes.
func (m *Manifest) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encode manifest %s: %w", m.SnapshotID, err)
	}
	return b.Bytes(), nil
}

// encodeCounted is Encode with StoredBytes set to packs plus the manifest's own length.
func (m *Manifest) encodeCounted(packs int64) ([]byte, error) {
	m.StoredBytes = packs
	for {
		p, err := m.Encode()
		if err != nil {
			return nil, err
		}
		if m.StoredBytes == packs+int64(len(p)) {
			return p, nil
		}
		// The length grows with the number's digits only, so this ends after a few rounds.
		m.StoredBytes = packs + int64(len(p))
	}
}

// ReadManifest decodes a manifest. It refuses a newer format with ErrNewerFormat, and all else that isn't the encoding of a
// manifest with ErrBadManifest.
func ReadManifest(p []byte) (Manifest, error) {
	var head struct {
		FormatVersion int `json:"format_version"`
	}
	if err := json.Unmarshal(p, &head); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrBadManifest, err)
	}
	if head.FormatVersion > ManifestVersion {
		return Manifest{}, fmt.Errorf("manifest has format %d: %w", head.FormatVersion, ErrNewerFormat)
	}
	var m Manifest
	dec := json.NewDecoder(bytes.NewReader(p))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrBadManifest, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Manifest{}, fmt.Errorf("%w: something follows its end", ErrBadManifest)
	}
	if err := m.check(); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrBadManifest, err)
	}
	if again, err := m.Encode(); err != nil || !bytes.Equal(again, p) {
		return Manifest{}, fmt.Errorf("%w: it isn't in its only form, so it was edited", ErrBadManifest)
	}
	return m, nil
}

func (m *Manifest) check() error {
	if m.FormatVersion < 1 {
		return fmt.Errorf("format version %d", m.FormatVersion)
	}
	if target.CheckName(ManifestObject(m.SnapshotID)) != nil {
		return fmt.Errorf("snapshot id %q", m.SnapshotID)
	}
	if _, err := chunkstore.ParseID(m.ChecksumSHA256); err != nil {
		return fmt.Errorf("checksum_sha256: %w", err)
	}
	if (m.Parent == "") != (m.ParentManifestSHA256 == "") {
		return errors.New("a parent without its manifest's hash, or the reverse")
	}
	if m.Parent != "" {
		if _, err := chunkstore.ParseID(m.ParentManifestSHA256); err != nil {
			return fmt.Errorf("parent_manifest_sha256: %w", err)
		}
	}
	if m.Kind != index.KindFull && m.Kind != index.KindIncremental {
		return fmt.Errorf("kind %q", m.Kind)
	}
	if tags, err := sortTags(m.Tags); err != nil || !slices.Equal(tags, m.Tags) {
		return fmt.Errorf("tags %q", m.Tags)
	}
	if min(m.Files, m.Bytes, m.DirtyBytes, m.StoredBytes) < 0 {
		return errors.New("negative counts")
	}
	return nil
}

// ManifestObject is the name of the object that has a snapshot's manifest.
func ManifestObject(id string) string { return ManifestPrefix + id + manifestSuffix }

// ClusterObject is the name of the object with the manifest of a cluster's snapshot.
func ClusterObject(id string) string { return ClusterPrefix + id + manifestSuffix }

// ManifestID is the snapshot whose manifest an object has; false if that isn't its name.
func ManifestID(object string) (id string, ok bool) {
	return strings.CutSuffix(strings.TrimPrefix(object, ManifestPrefix), manifestSuffix)
}

// Manifest reads a snapshot's manifest, and gives the SHA-256 of its bytes in hexadecimal too.
func (r *Repo) Manifest(ctx context.Context, id string) (Manifest, string, error) {
	return readManifest(ctx, r.target, id)
}

func readManifest(ctx context.Context, t target.Target, id string) (Manifest, string, error) {
	p, err := target.Get(ctx, t, ManifestObject(id), MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, "", fmt.Errorf("manifest of snapshot %s is missing: %w", id, err)
	}
	if err != nil {
		return Manifest{}, "", fmt.Errorf("manifest of snapshot %s: %w", id, err)
	}
	m, err := ReadManifest(p)
	if err == nil && m.SnapshotID != id {
		err = fmt.Errorf("%w: it is that of snapshot %s", ErrBadManifest, m.SnapshotID)
	}
	if err != nil {
		return Manifest{}, "", fmt.Errorf("manifest of snapshot %s: %w", id, err)
	}
	return m, hashHex(p), nil
}

func hashHex(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}
