package crypt

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"graphvol/chunkstore/target"
)

// TestPassphraseFile: a passphrase opens a keyring, and its key file knows from then on which keyring that must be.
func TestPassphraseFile(t *testing.T) {
	d, err := target.OpenDir(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	ring := newRing(t)
	const words = "six random words, and: a # sign "
	to, err := PassphraseRecipient(words)
	if err == nil {
		err = AddKey(t.Context(), d, "vault", ring, to)
	}
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewPassphraseFile(words)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.OpenKeyring(t.Context(), d); err != nil || got.Pin() != ring.Pin() || k.Pin != ring.Pin() {
		t.Fatalf("%v, %v", got, err)
	}
	path := filepath.Join(t.TempDir(), "keys", "r1.key")
	if err := k.Write(path); err != nil {
		t.Fatal(err)
	}
	again, err := ReadKeyFile(path)
	if err != nil || again.Passphrase != words || again.Identity != nil || again.Pin != ring.Pin() {
		t.Fatalf("read back: %v, %v", again, err)
	}
	if _, err := again.OpenKeyring(t.Context(), d); err != nil {
		t.Error(err)
	}
	// Another store's keyring under the same passphrase, put in this one's place.
	if err := d.Remove(t.Context(), "keys/vault.age"); err != nil {
		t.Fatal(err)
	}
	if err := AddKey(t.Context(), d, "vault", newRing(t), to); err != nil {
		t.Fatal(err)
	}
	if _, err := again.OpenKeyring(t.Context(), d); !errors.Is(err, ErrForeignKeyring) {
		t.Errorf("with another keyring: %v", err)
	}
	wrong, err := NewPassphraseFile("something else")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrong.OpenKeyring(t.Context(), d); !errors.Is(err, ErrNoKey) {
		t.Errorf("with another passphrase: %v", err)
	}
}

func TestPassphraseFileRefuses(t *testing.T) {
	for _, p := range []string{"", "a\nb", "a\x00", strings.Repeat("x", maxPassphrase+1)} {
		if _, err := NewPassphraseFile(p); err == nil {
			t.Errorf("%.10q was accepted", p)
		}
	}
	k := &KeyFile{Passphrase: "zebra words", Pin: newRing(t).Pin()}
	good := k.encode()
	if _, err := decodeKeyFile(good); err != nil {
		t.Fatal(err)
	}
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		got, err := decodeKeyFile(bad)
		if err == nil && bytes.Equal(got.encode(), good) {
			t.Errorf("bit %d is another and nobody sees it", i)
		}
		if err != nil && strings.Contains(err.Error(), "zebra") {
			t.Errorf("bit %d: the error tells the passphrase: %v", i, err)
		}
	}
}
