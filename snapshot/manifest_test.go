package snapshot

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func sampleManifest() Manifest {
	return Manifest{
		FormatVersion: 1, SnapshotID: "06gkx0vyr8q1n7m3d5t9zc2b4w", Name: "before the <import>", Parent: "06gkx0tt",
		ParentManifestSHA256: strings.Repeat("ab", 32), Created: time.Date(2026, 11, 25, 1, 56, 21, 123000000, time.UTC),
		ChecksumSHA256: strings.Repeat("cd", 32), NodeTopology: Topology{Nodes: []TopologyNode{{Name: "db-1"}}},
		Volume: "0011223344556677", Kind: "incremental", Files: 12, Bytes: 3 << 30, DirtyBytes: 21471232,
	}
}

func TestManifestGolden(t *testing.T) {
	m := sampleManifest()
	p, err := m.encodeCounted(11_000_000)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, want) {
		t.Errorf("manifest is now\n%s", p)
	}
	if m.StoredBytes != 11_000_000+int64(len(p)) {
		t.Errorf("stored_bytes is %d", m.StoredBytes)
	}
	if back, err := ReadManifest(want); err != nil || back.Name != m.Name || !back.Created.Equal(m.Created) {
		t.Errorf("read back %+v, %v", back, err)
	}
}

func TestReadManifestRefuses(t *testing.T) {
	m := sampleManifest()
	good, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) []byte { return bytes.Replace(good, []byte(old), []byte(new), 1) }
	if _, err := ReadManifest(edit(`"format_version": 1`, `"format_version": 2`)); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("a newer format: %v", err)
	}
	for name, p := range map[string][]byte{
		"empty":         nil,
		"unknown field": edit(`"kind"`, `"sort"`),
		"bad kind":      edit("incremental", "tiny"),
		"no parent":     edit("06gkx0tt", ""),
		"bad id":        edit("06gkx0vyr8q1n7m3d5t9zc2b4w", "../x"),
		"bad checksum":  edit("cdcd", "zzzz"),
		"version 0":     edit(`"format_version": 1`, `"format_version": 0`),
		"negative":      edit(`"files": 12`, `"files": -1`),
		"spaces":        edit(`"files": 12`, `"files":  12`),
		"trailing":      append(bytes.Clone(good), "{}"...),
		"cut":           good[:len(good)/2],
	} {
		if _, err := ReadManifest(p); !errors.Is(err, ErrBadManifest) {
			t.Errorf("%s: %v, want ErrBadManifest", name, err)
		}
	}
}

func FuzzReadManifest(f *testing.F) {
	m := sampleManifest()
	good, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format_version":1}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := ReadManifest(p)
		if err != nil {
			return
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, p) {
			t.Fatalf("decoded what isn't the encoding: %v", err)
		}
	})
}
