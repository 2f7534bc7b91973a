package crypt

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

func goldenKeyFile(t testing.TB) *KeyFile {
	t.Helper()
	id, err := parseIdentity(goldenIdentity)
	if err != nil {
		t.Fatal(err)
	}
	return &KeyFile{Identity: id, Pin: goldenRing().Pin()}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "remote.key")
	k, err := NewKeyFile(newRing(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want ErrNotExist", err)
	}
	for range 2 {
		if err := k.Write(path); err != nil {
			t.Fatal(err)
		}
		got, err := ReadKeyFile(path)
		if err != nil || got.Pin != k.Pin || got.Identity.String() != k.Identity.String() {
			t.Fatalf("%v, %v", got, err)
		}
		if k, err = NewKeyFile(newRing(t)); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	// age's own program reads it too.
	ids, err := age.ParseIdentities(bytes.NewReader(k.encode()))
	if err != nil || len(ids) != 1 {
		t.Errorf("%v, %v", ids, err)
	}
	if _, err := ReadIdentities(path); err != nil {
		t.Error(err)
	}
}

func TestModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.key")
	if err := goldenKeyFile(t).Write(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o604, 0o640, 0o660, 0o644, 0o400} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := ReadKeyFile(path)
		_, err2 := ReadIdentities(path)
		for _, err := range []error{err, err2} {
			if ok := mode == 0o400; ok != (err == nil) || !ok && (!errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "0600")) {
				t.Errorf("mode %o: %v", mode, err)
			}
		}
	}
}

func TestGoldenKeyFile(t *testing.T) {
	checkGolden(t, "keyfile.golden", string(goldenKeyFile(t).encode()))
}

func TestBadKeyFiles(t *testing.T) {
	good := string(goldenKeyFile(t).encode())
	for what, change := range map[string][2]string{
		"title": {"graphvol", "grapvhol"}, "version": {"file 1", "file 0"}, "store": {testStore, "xx"}, "number": {"commitment 3", "commitment 0"},
		"commitment": {"commitment 3 ", "commitment 3 0"}, "identity": {"AGE-SECRET-KEY-16", "AGE-SECRET-KEY-1Y"}, "public key": {"age1", "age2"}, "another line": {"# store", "#\n# store"},
	} {
		_, err := decodeKeyFile([]byte(strings.Replace(good, change[0], change[1], 1)))
		if err == nil || errors.Is(err, ErrNewerFormat) || strings.Contains(err.Error(), "SECRET-KEY-1Y") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := decodeKeyFile([]byte(strings.Replace(good, "file 1", "file 2", 1))); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("%v, want ErrNewerFormat", err)
	}
	path := filepath.Join(t.TempDir(), "ids")
	for content, ok := range map[string]bool{"# none\n": false, goldenIdentity: true, "# x\n\n" + goldenIdentity + "\r\n": true, goldenIdentity + "\nhello\n": false} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadIdentities(path); (err == nil) != ok || !ok && !errors.Is(err, ErrKeyFile) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func FuzzKeyFile(f *testing.F) {
	f.Add(goldenKeyFile(f).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := decodeKeyFile(data); err == nil && !bytes.Equal(k.encode(), data) {
			t.Error("encodes differently")
		}
	})
}
