package crypt

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"filippo.io/age"
)

// goldenIdentity opens testdata/keyring.age.
const goldenIdentity = "AGE-SECRET-KEY-16ZALY2SWDXJKE8295V2W2UXTLGLQ99YT4EHFQAAVYZM2E97H6NKSAHXQMQ"

func newIdentity(t testing.TB) *X25519 {
	t.Helper()
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// cheapPassphrase is a passphrase recipient that doesn't take a second.
func cheapPassphrase(t testing.TB, passphrase string) Recipient {
	t.Helper()
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(8)
	return r
}

func passphraseIdentity(t testing.TB, passphrase string) Identity {
	t.Helper()
	id, err := PassphraseIdentity(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func wrap(t testing.TB, r *Keyring, recipients ...Recipient) []byte {
	t.Helper()
	data, err := Wrap(r, recipients...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func wantRing(t testing.TB, got *Keyring, err error, want *Keyring) {
	t.Helper()
	if err != nil {
		t.Error(err)
	} else if !got.includes(want) || !want.includes(got) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestWrap(t *testing.T) {
	ring := rotated(t, newRing(t))
	a, b, other := newIdentity(t), newIdentity(t), newIdentity(t)
	data := wrap(t, ring, a.Recipient(), b.Recipient())
	for _, id := range []Identity{a, b} {
		got, err := Unwrap(data, other, id)
		wantRing(t, got, err, ring)
	}
	secret := wrap(t, ring, cheapPassphrase(t, "correct horse"))
	got, err := Unwrap(secret, a, passphraseIdentity(t, "correct horse"))
	wantRing(t, got, err, ring)
	for what, ids := range map[string][]Identity{"another identity": {other}, "a passphrase": {passphraseIdentity(t, "correct horse")}, "none": nil} {
		if _, err := Unwrap(data, ids...); !errors.Is(err, ErrNoKey) {
			t.Errorf("%s: %v, want ErrNoKey", what, err)
		}
	}
	if _, err := Unwrap(secret, passphraseIdentity(t, "wrong horse")); !errors.Is(err, ErrNoKey) {
		t.Errorf("another passphrase: %v, want ErrNoKey", err)
	}
	if _, err := Wrap(ring, cheapPassphrase(t, "x"), a.Recipient()); err == nil {
		t.Error("a passphrase was not alone")
	}
	if _, err := PassphraseRecipient(""); err == nil {
		t.Error("an empty passphrase was accepted")
	}
	for i := range data {
		p := bytes.Clone(data)
		p[i] ^= 1
		if _, err := Unwrap(p, a); err == nil {
			t.Errorf("byte %d can be changed", i)
		}
	}
}

// TestHostileWork: a forged key file doesn't make this machine compute for ever.
func TestHostileWork(t *testing.T) {
	data := wrap(t, newRing(t), cheapPassphrase(t, "x"))
	for _, work := range []int{maxWorkFactor + 1, 30, 63} {
		head, rest, _ := bytes.Cut(data, []byte(" 8\n"))
		forged := fmt.Appendf(nil, "%s %d\n%s", head, work, rest)
		if _, err := Unwrap(forged, passphraseIdentity(t, "x")); err == nil || !strings.Contains(err.Error(), "work factor too large") {
			t.Errorf("work factor %d: %v", work, err)
		}
	}
	if _, err := Unwrap(make([]byte, maxKeyring+1), newIdentity(t)); err == nil {
		t.Error("a long one was accepted")
	}
}

func TestGoldenKeyring(t *testing.T) {
	plain, err := goldenRing().encode()
	if err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "keyring.json", string(plain))
	id, err := parseIdentity(goldenIdentity)
	if err != nil {
		t.Fatal(err)
	}
	const name = "testdata/keyring.age"
	if _, err := os.Stat(name); *update && err != nil { // else it differs each time
		if err := os.WriteFile(name, wrap(t, goldenRing(), id.Recipient()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Unwrap(data, id)
	wantRing(t, got, err, goldenRing())
}

func TestBadKeyrings(t *testing.T) {
	good, err := goldenRing().encode()
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string][2]string{
		"no version": {`"format_version":1,`, ``}, "version 0": {`_version":1`, `_version":0`},
		"unknown field": {`"store"`, `"x":1,"store"`}, "upper case": {`aabb`, `AABB`}, "short id": {testStore, `00`},
		"number 0": {`"number":1`, `"number":0`}, "descending": {`"number":1`, `"number":3`}, "short key": {`dGhlIGZp`, ``},
		"more": {`]}`, `]}{}`}, "no keys": {`"keys"`, `"kyes"`},
	} {
		data := strings.Replace(string(good), change[0], change[1], 1)
		if _, err := decodeKeyring([]byte(data)); err == nil || errors.Is(err, ErrNewerFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
	newer := strings.Replace(string(good), `_version":1`, `_version":2,"keys2":3`, 1)
	if _, err := decodeKeyring([]byte(newer)); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("newer: %v", err)
	}
	for _, id := range []string{"", "xy", strings.Repeat("0", 34), "0011223344556677889"} {
		if _, err := NewKeyring(id); err == nil {
			t.Errorf("store id %q was accepted", id)
		}
	}
}

// TestNoSecretsPrinted: whatever is logged, keys are not.
func TestNoSecretsPrinted(t *testing.T) {
	ring := goldenRing()
	k := goldenKeyFile(t)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		s := fmt.Sprintf(format+format, ring, k)
		if strings.Contains(s, "SECRET") || strings.Contains(s, "repository key") || strings.Contains(s, fmt.Sprint([]byte("key"))[1:11]) {
			t.Errorf("%s prints %s", format, s)
		}
	}
}

// TestLocal: what was kept with a keyring is read with a later one, and not with that of another store or for another purpose.
func TestLocal(t *testing.T) {
	ring, err := NewKeyring(NewStoreID())
	if err != nil {
		t.Fatal(err)
	}
	later, err := ring.Rotated()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := NewKeyring(ring.Store())
	if err != nil {
		t.Fatal(err)
	}
	local := func(r *Keyring, purpose string) cipher.AEAD {
		a, err := r.Local(purpose)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	nonce := make([]byte, 12)
	p := local(ring, "blocks").Seal(nil, nonce, []byte("data"), nil)
	if got, err := local(later, "blocks").Open(nil, nonce, p, nil); err != nil || string(got) != "data" {
		t.Errorf("after a rotation: %q, %v", got, err)
	}
	for _, a := range []cipher.AEAD{local(foreign, "blocks"), local(ring, "other")} {
		if _, err := a.Open(nil, nonce, p, nil); err == nil {
			t.Error("another key opens it")
		}
	}
}

func TestPin(t *testing.T) {
	first := newRing(t)
	second := rotated(t, first)
	other, forged := newRing(t), rotated(t, newRing(t))
	elsewhere, err := NewKeyring(NewStoreID())
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		pin  Pin
		ring *Keyring
		ok   bool
	}{
		"itself": {first.Pin(), first, true}, "rotated since": {first.Pin(), second, true}, "newest": {second.Pin(), second, true},
		"older than the pin": {second.Pin(), first, false}, "another key": {first.Pin(), other, false}, "another newest": {second.Pin(), forged, false},
		"another store": {first.Pin(), elsewhere, false}, "no pin": {Pin{}, other, true},
	} {
		if err := c.pin.Check(c.ring); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrForeignKeyring) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzKeyring(f *testing.F) {
	good, err := goldenRing().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeKeyring(data)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			return // too many keys, or a time that JSON doesn't have
		}
		got, err := decodeKeyring(again)
		wantRing(t, got, err, r)
	})
}

func FuzzUnwrap(f *testing.F) {
	data, err := os.ReadFile("testdata/keyring.age")
	if err != nil {
		f.Fatal(err)
	}
	id, err := parseIdentity(goldenIdentity)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = Unwrap(data, id) })
}
