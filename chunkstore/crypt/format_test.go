package crypt

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"graphvol/chunkstore/target"
)

var update = flag.Bool("update", false, "write the golden files anew")

const goldenName = "packs/0a/golden.pack"

// goldenRing is the same each time.
func goldenRing() *Keyring {
	day := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	return &Keyring{testStore, []numbered{
		{1, day, repositoryKey([]byte("the first repository key, 32 byt"))},
		{3, day.AddDate(0, 1, 0), repositoryKey([]byte("the third repository key, 32 byt"))},
	}}
}

func goldenObject(t testing.TB, data []byte) []byte {
	m := &memTarget{}
	tg := New(m, goldenRing())
	tg.salt = func() salt { return salt([]byte("0123456789abcdef0123456789abcdef")) }
	if err := target.Put(t.Context(), tg, goldenName, data); err != nil {
		t.Fatal(err)
	}
	return m.stored
}

func checkGolden(t *testing.T, name, got string) {
	t.Helper()
	name = "testdata/" + name
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: the format changed. Got:\n%s\nwant:\n%s", name, got, want)
	}
}

// dump annotates an object with one segment as the package documentation describes it.
func dump(p []byte) string {
	var b strings.Builder
	pos := 0
	field := func(n int, what string) {
		fmt.Fprintf(&b, "%4d  %-64s  %s\n", pos, hex.EncodeToString(p[pos:pos+n]), what)
		pos += n
	}
	field(8, "header: magic")
	field(4, "header: version")
	field(4, "header: number of the repository key")
	field(32, "header: salt")
	field(16, "header: zero")
	field(len(p)-headerLen-tagLen, "segment 0: encrypted")
	field(tagLen, "segment 0: tag")
	return b.String()
}

func TestGolden(t *testing.T) {
	checkGolden(t, "object.golden", dump(goldenObject(t, []byte("what is encrypted"))))
}

// TestFormat decrypts an object of three segments with nothing but what the package documentation says.
func TestFormat(t *testing.T) {
	data := randomBytes(9, 2*65536+5)
	p := goldenObject(t, data)
	if len(p) != 64+len(data)+3*16 {
		t.Fatalf("%d bytes", len(p))
	}
	key, err := hkdf.Key(sha256.New, []byte("the third repository key, 32 byt"), p[16:48], "graphvol object 1\x00"+goldenName, 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for i := range 3 {
		seg := p[64+i*65552 : min(len(p), 64+(i+1)*65552)]
		nonce := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(i), 0}
		if i == 2 {
			nonce[11] = 1
		}
		if got, err = aead.Open(got, nonce, seg, p[:64]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, data) {
		t.Error("it decrypts to something else")
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct{ plain, stored int64 }{
		{0, 80}, {1, 81}, {65535, 65615}, {65536, 65616}, {65537, 65633}, {131072, 131168}, {1 << 30, 1<<30 + 64 + 16*16384},
	} {
		if got := sealedSize(c.plain); got != c.stored {
			t.Errorf("%d bytes take %d, want %d", c.plain, got, c.stored)
		}
	}
	possible := make(map[int64]int64)
	for n := range int64(3*segmentLen + 5) {
		possible[sealedSize(n)] = n
	}
	for s := int64(-1); s < sealedSize(3*segmentLen+5); s++ {
		want, ok := possible[s]
		if n, got := plainSize(s); got != ok || ok && n != want {
			t.Fatalf("%d stored: %d, %v, want %d, %v", s, n, got, want, ok)
		}
	}
	for _, s := range []int64{1<<63 - 1, 1 << 62, -1 << 63} {
		if _, ok := plainSize(s); ok {
			t.Errorf("%d was accepted", s)
		}
	}
}

func TestNewerFormat(t *testing.T) {
	p := goldenObject(t, nil)
	p[8]++
	if _, err := opened(t, goldenRing(), goldenName, p); err == nil || !strings.Contains(err.Error(), ErrNewerFormat.Error()) {
		t.Errorf("%v, want ErrNewerFormat", err)
	}
}

func FuzzObject(f *testing.F) {
	f.Add(goldenObject(f, []byte("what is encrypted")))
	f.Add(goldenObject(f, nil))
	f.Add(goldenObject(f, make([]byte, segmentLen+1)))
	f.Fuzz(func(t *testing.T, p []byte) {
		data, err := opened(t, goldenRing(), goldenName, p)
		if err == nil && sealedSize(int64(len(data))) != int64(len(p)) {
			t.Errorf("%d bytes from %d", len(data), len(p))
		}
	})
}

func FuzzSizes(f *testing.F) {
	f.Add(int64(80))
	f.Add(int64(1)<<62 + 1)
	f.Fuzz(func(t *testing.T, s int64) {
		if n, ok := plainSize(s); ok && (n < 0 || sealedSize(n) != s) {
			t.Errorf("%d stored are %d", s, n)
		}
	})
}
