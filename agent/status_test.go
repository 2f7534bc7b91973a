package agent

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"graphvol/agent/api"
	"graphvol/chunkstore"
)

// addPacks puts packs into the store of a state that nobody reads.
func addPacks(t testing.TB, state string, n int) {
	t.Helper()
	for range n {
		var id chunkstore.PackID
		rand.Read(id[:])
		path := filepath.Join(state, "store", filepath.FromSlash(id.Object()))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("pack"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serveState is serveFake that tells the state directory.
func serveState(t testing.TB) (c *Client, state string) {
	t.Helper()
	c = serveFake(t, &fakeLive{}, func(cfg *serviceConfig) { state = cfg.state })
	return c, state
}

func TestStatus(t *testing.T) {
	c, state := serveState(t)
	for _, name := range []string{"one", "two"} {
		if _, _, err := take(t, c, &api.SnapshotRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	addPacks(t, state, 3)
	two, err := c.GetSnapshot(t.Context(), &api.GetSnapshotRequest{Snapshot: "two"})
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Status(t.Context(), &api.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if all.GetDirtyBytes() != 4096 || all.GetStoreBytes() < 12 || all.GetSnapshots() != 2 || all.GetStates()["complete"] != 2 || !proto.Equal(all.GetNewest(), two.GetCreated()) {
		t.Errorf("status: %v, want the moment of %v", all, two)
	}
	some, err := c.Status(t.Context(), &api.StatusRequest{WithoutSizes: true})
	if err != nil {
		t.Fatal(err)
	}
	all.DirtyBytes, all.StoreBytes, all.Server, some.Server = 0, 0, nil, nil
	if !proto.Equal(all, some) {
		t.Errorf("without sizes: %v, want %v", some, all)
	}
}

// BenchmarkStatus shows what sizes cost on a volume with many packs.
func BenchmarkStatus(b *testing.B) {
	c, state := serveState(b)
	addPacks(b, state, 10_000)
	for name, req := range map[string]*api.StatusRequest{"all": {}, "without sizes": {WithoutSizes: true}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := c.Status(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
