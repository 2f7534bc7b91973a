package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"graphvol/integration/volume"
)

// manifest is what a store has of a snapshot of the cluster.
type manifest struct {
	ID       string `json:"snapshot_id"`
	Checksum string `json:"checksum_sha256"`
	Topology struct {
		Nodes []struct {
			Name    string `json:"name"`
			Volumes []struct {
				Name     string `json:"name"`
				Snapshot string `json:"snapshot_id"`
				Manifest string `json:"manifest_sha256"`
			} `json:"volumes"`
		} `json:"nodes"`
	} `json:"node_topology"`
}

// checkManifest fails the test unless all stores have the same manifest of a complete snapshot, and its digests are those of what it describes.
func (t *test) checkManifest(row Row) {
	t.Helper()
	first := t.manifestIn(t.Nodes[0].Volumes[0], row.ID)
	for _, v := range t.volumes() {
		if got := t.manifestIn(v, row.ID); !bytes.Equal(got, first) {
			t.Errorf("%s: the manifest of %s is another one than elsewhere:\n%s", v.Mount, row.Name, got)
		}
	}
	var m manifest
	if err := json.Unmarshal(first, &m); err != nil || m.ID != row.ID || m.Checksum != row.Checksum || len(m.Topology.Nodes) != len(t.Nodes) {
		t.Errorf("the manifest of %s: %v\n%s", row.Name, err, first)
		return
	}
	var lines strings.Builder // volumes are in the order of their names, as nodes are
	for i, n := range m.Topology.Nodes {
		for j, v := range n.Volumes {
			raw, err := os.ReadFile(filepath.Join(t.Nodes[i].Volumes[j].StateDir(), "store", "manifests", v.Snapshot+".json"))
			if err != nil || digest(raw) != v.Manifest {
				t.Errorf("%s on %s/%s: %v; the cluster's manifest says that the volume's has the digest %s", row.Name, n.Name, v.Name, err, v.Manifest)
			}
			fmt.Fprintf(&lines, "%s/%s %s\n", n.Name, v.Name, v.Manifest)
		}
	}
	if sum := digest([]byte(lines.String())); sum != m.Checksum {
		t.Errorf("the manifest of %s has the digest %s, and its parts %s", row.Name, m.Checksum, sum)
	}
}

// manifestIn waits for the manifest in a volume's store: a node that was away when the snapshot became complete stores it later.
func (t *test) manifestIn(v *volume.Volume, id string) (raw []byte) {
	t.Helper()
	t.eventually("the cluster's manifest is in the store of "+v.Mount, func(context.Context) bool {
		var err error
		raw, err = os.ReadFile(filepath.Join(v.StateDir(), "store", "clusters", id+".json"))
		return err == nil
	})
	return raw
}

func digest(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}
