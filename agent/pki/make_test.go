package pki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMade(t *testing.T) {
	dir := cluster(t)
	for name, mode := range map[string]os.FileMode{"": 0o700, "ca.crt": 0o644, "ca.key": 0o600, "a.crt": 0o644, "a.key": 0o600, "eve.key": 0o600} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %o", name, st.Mode(), err, mode)
		}
	}
	ca, err := readCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Until(ca.leaf.NotAfter); d < caLifetime-time.Minute || d > caLifetime || !ca.leaf.IsCA || ca.leaf.Subject.CommonName != "graph" {
		t.Errorf("the CA: %v, %+v", d, ca.leaf.Subject)
	}
	p := mustPair(t)(MakeNode(dir, "10.0.0.1", []string{"h_1"}, 2*caLifetime))
	certs, err := readCerts(p.Cert)
	if err != nil || !certs[0].NotAfter.Equal(ca.leaf.NotAfter) {
		t.Errorf("%v: longer than the CA: %v", err, certs[0].NotAfter)
	}
	if got := names(certs[0]); !slices.Equal(got, []string{"h_1", "10.0.0.1"}) {
		t.Errorf("names %v", got)
	}
	if err := open(t, filesOf(dir, "10.0.0.1")).CheckNode("10.0.0.1"); err != nil {
		t.Errorf("a node whose name is an address: %v", err)
	}
}

func TestMakeRefuses(t *testing.T) {
	dir := cluster(t)
	before := contents(t, dir)
	node := func(name string, hosts ...string) error { _, err := MakeNode(dir, name, hosts, Lifetime); return err }
	for text, err := range map[string]error{
		"a.crt is there already":                node("a"),
		"ca.crt is there already":               second(MakeCA(dir, "graph")),
		"eve.crt is there already":              second(MakeOperator(dir, "eve", Lifetime)),
		`name "../x"`:                           node("../x"),
		`name "ca": that is what the files`:     node("ca"),
		`host "*.example.com": it must be`:      node("c", "*.example.com"),
		`host "c:7440": it must be`:             node("c", "c:7440"),
		"make one with graphvol cert ca":        second(MakeNode(t.TempDir(), "c", nil, Lifetime)),
		`name "a b"`:                            second(MakeCA(t.TempDir(), "a b")),
		"b.key is there already, and nothing w": func() error { os.Rename(filepath.Join(dir, "b.crt"), filepath.Join(dir, "b.old")); return node("b") }(),
	} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
	os.Rename(filepath.Join(dir, "b.old"), filepath.Join(dir, "b.crt"))
	if after := contents(t, dir); after != before {
		t.Errorf("files have changed:\n%s\n%s", before, after)
	}
}

// Somebody else may make the same at the same time.
func TestWriteNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	for _, der := range []string{"first", "second"} {
		if err := writeNew(path, "X", []byte(der), 0o600); (err == nil) != (der == "first") {
			t.Errorf("%s: %v", der, err)
		}
	}
	if raw, err := os.ReadFile(path); err != nil || string(raw) != string(pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: []byte("first")})) {
		t.Errorf("%v: %s", err, raw)
	}
}

func second(_ Pair, err error) error { return err }

func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(e.Name() + "\n" + string(raw))
	}
	return b.String()
}

// Other tools write keys in other forms.
func TestKeysOfOthers(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.key")
	for kind, want := range map[string]bool{"RSA PRIVATE KEY": true, "ENCRYPTED PRIVATE KEY": false} {
		block := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: x509.MarshalPKCS1PrivateKey(key)})
		if err := os.WriteFile(path, block, 0o640); err != nil {
			t.Fatal(err)
		}
		if got, err := readKey(path); (err == nil) != want || want && !key.Equal(got) || !want && !strings.Contains(err.Error(), "without a passphrase") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
