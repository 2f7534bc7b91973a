package target_test

import (
	"os"
	"path/filepath"
	"testing"

	"graphvol/chunkstore/target"
	"graphvol/chunkstore/target/targettest"
)

func openDir(t *testing.T, root string) *target.Dir {
	t.Helper()
	d, err := target.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDir(t *testing.T) {
	targettest.RunLocal(t, func(t *testing.T) target.Local {
		return openDir(t, filepath.Join(t.TempDir(), "store"))
	})
}

func TestDirLeftovers(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	d := openDir(t, root)
	running, err := d.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := running.Write([]byte("live")); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(root, ".tmp", "up-dead")
	if err := os.WriteFile(dead, []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	openDir(t, root)
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("a dead process's upload is still there: %v", err)
	}
	if err := running.Commit(t.Context(), "x"); err != nil {
		t.Errorf("a running upload was disturbed: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(root, ".tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in .tmp: %v, %v", left, err)
	}
}

func TestDirIgnoresStrangeFiles(t *testing.T) {
	root := t.TempDir()
	d := openDir(t, root)
	if err := os.MkdirAll(filepath.Join(root, "packs", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"packs/.hidden", "packs/with space"} {
		if err := os.WriteFile(filepath.Join(root, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(root, "packs", "link")); err != nil {
		t.Fatal(err)
	}
	if infos, err := d.List(t.Context(), "packs/"); err != nil || len(infos) != 0 {
		t.Errorf("listed %v, %v", infos, err)
	}
}
