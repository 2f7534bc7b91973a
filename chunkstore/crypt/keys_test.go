package crypt

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"graphvol/chunkstore/target"
)

func addKey(t *testing.T, tg target.Target, name string, r *Keyring, to Recipient) {
	t.Helper()
	if err := AddKey(t.Context(), tg, name, r, to); err != nil {
		t.Fatal(err)
	}
}

func TestKeys(t *testing.T) {
	inner := openDir(t, t.TempDir())
	ring := newRing(t)
	tg := New(inner, ring)
	a, b := newIdentity(t), newIdentity(t)
	if _, err := OpenKeyring(t.Context(), inner, Pin{}, a); !errors.Is(err, ErrNoKey) {
		t.Errorf("no keys: %v, want ErrNoKey", err)
	}
	addKey(t, tg, "a", ring, a.Recipient())
	addKey(t, inner, "b", ring, b.Recipient())
	addKey(t, tg, "words", ring, cheapPassphrase(t, "correct horse"))
	if err := AddKey(t.Context(), tg, "a", ring, b.Recipient()); !errors.Is(err, target.ErrExists) {
		t.Errorf("a name that is taken: %v, want ErrExists", err)
	}
	for _, name := range []string{"", "x/y", ".x", "x y", strings.Repeat("n", 197)} {
		if err := AddKey(t.Context(), tg, name, ring, a.Recipient()); !errors.Is(err, target.ErrBadName) {
			t.Errorf("%q: %v, want ErrBadName", name, err)
		}
	}
	for _, name := range []string{"keys/readme", "keys/sub/x.age"} { // no keys
		if err := target.Put(t.Context(), inner, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := ListKeys(t.Context(), tg); err != nil || !slices.Equal(names, []string{"a", "b", "words"}) {
		t.Errorf("%v, %v", names, err)
	}
	for _, id := range []Identity{a, b, passphraseIdentity(t, "correct horse")} {
		got, err := OpenKeyring(t.Context(), inner, ring.Pin(), id)
		wantRing(t, got, err, ring)
	}
	if _, err := OpenKeyring(t.Context(), inner, ring.Pin(), newIdentity(t)); !errors.Is(err, ErrNoKey) {
		t.Errorf("another identity: %v, want ErrNoKey", err)
	}
}

func TestRemoveKey(t *testing.T) {
	tg := openDir(t, t.TempDir())
	ring := newRing(t)
	a := newIdentity(t)
	addKey(t, tg, "a", ring, a.Recipient())
	addKey(t, tg, "b", ring, a.Recipient())
	for _, c := range []struct {
		name string
		want error
	}{{"c", fs.ErrNotExist}, {"b", nil}, {"b", fs.ErrNotExist}, {"a", ErrLastKey}, {"x/y", target.ErrBadName}} {
		if err := RemoveKey(t.Context(), tg, c.name); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	got, err := OpenKeyring(t.Context(), tg, Pin{}, a)
	wantRing(t, got, err, ring)
}

// TestSubstitutedKey is the attack that pins are for: whoever can write to the target wraps a keyring of his own for a public key that he knows.
func TestSubstitutedKey(t *testing.T) {
	root := t.TempDir()
	tg := openDir(t, root)
	ring := newRing(t)
	file, err := NewKeyFile(ring)
	if err != nil {
		t.Fatal(err)
	}
	public := file.Identity.Recipient()
	addKey(t, tg, "mine", ring, public)
	forged := newRing(t) // of the same store: its id is no secret
	addKey(t, tg, "a-first", forged, public)

	got, err := OpenKeyring(t.Context(), tg, file.Pin, file.Identity)
	wantRing(t, got, err, ring)
	if _, err := OpenKeyring(t.Context(), tg, Pin{}, file.Identity); !errors.Is(err, ErrForeignKeyring) {
		t.Errorf("two keyrings and no pin: %v, want ErrForeignKeyring", err)
	}
	if err := RemoveKey(t.Context(), tg, "mine"); err != nil {
		t.Fatal(err)
	}
	for what, pin := range map[string]Pin{"file": file.Pin, "newer": rotated(t, ring).Pin()} {
		if _, err := OpenKeyring(t.Context(), tg, pin, file.Identity); !errors.Is(err, ErrForeignKeyring) || errors.Is(err, ErrNoKey) {
			t.Errorf("only the forged one, pin of the %s: %v, want ErrForeignKeyring", what, err)
		}
	}
	paper, err := ParseRecovery(file.Recovery())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyring(t.Context(), tg, paper.Pin, paper.Identity); !errors.Is(err, ErrForeignKeyring) {
		t.Errorf("recovery text: %v, want ErrForeignKeyring", err)
	}
}

// TestKeysOfSeveralAges: after a rotation some keys still have the older keyring.
func TestKeysOfSeveralAges(t *testing.T) {
	tg := openDir(t, t.TempDir())
	first := newRing(t)
	second := rotated(t, first)
	id := newIdentity(t)
	addKey(t, tg, "a", first, id.Recipient())
	addKey(t, tg, "b", second, id.Recipient())
	addKey(t, tg, "c", first, id.Recipient())
	for _, pin := range []Pin{{}, first.Pin(), second.Pin()} {
		got, err := OpenKeyring(t.Context(), tg, pin, id)
		wantRing(t, got, err, second)
	}
	if err := target.Put(t.Context(), tg, "keys/b.age", []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	got, err := OpenKeyring(t.Context(), tg, first.Pin(), id)
	wantRing(t, got, err, first)
	if _, err := OpenKeyring(t.Context(), tg, second.Pin(), id); !errors.Is(err, ErrForeignKeyring) {
		t.Errorf("only older ones: %v, want ErrForeignKeyring", err)
	}
}

func TestManyKeys(t *testing.T) {
	tg := &manyKeys{n: maxKeys}
	ring := newRing(t)
	id := newIdentity(t)
	if err := AddKey(t.Context(), tg, "one-more", ring, id.Recipient()); err == nil {
		t.Error("one more was added")
	}
	tg.n++
	if _, err := OpenKeyring(t.Context(), tg, Pin{}, id); err == nil || !strings.Contains(err.Error(), "101 keys") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tg.n = 1
	if _, err := OpenKeyring(ctx, tg, Pin{}, id); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

type manyKeys struct {
	memTarget
	n int
}

func (m *manyKeys) List(context.Context, string) (out []target.Info, err error) {
	for i := range m.n {
		out = append(out, target.Info{Name: "keys/" + string(bytes.Repeat([]byte("x"), i+1)) + ".age"})
	}
	return out, nil
}
