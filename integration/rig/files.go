package rig

import (
	"bytes"
	"crypto/rand"
	"os"
	"testing"
)

// WriteFile replaces a file by n random bytes and returns them.
func WriteFile(t testing.TB, path string, n int) []byte {
	t.Helper()
	p := RandomBytes(n)
	if err := os.WriteFile(path, p, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// RandomBytes returns n random bytes.
func RandomBytes(n int) []byte {
	p := make([]byte, n)
	rand.Read(p)
	return p
}

// SameFile fails the test if the file has another content.
func SameFile(t testing.TB, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; want %d other bytes", path, len(got), err, len(want))
	}
}
