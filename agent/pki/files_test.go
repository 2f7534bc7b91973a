package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graphvol/agent/config"
)

// cluster makes a CA with the nodes a and b and an operator.
func cluster(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	mustPair(t)(MakeCA(dir, "graph"))
	mustPair(t)(MakeNode(dir, "a", []string{"127.0.0.1", "a.example.com"}, Lifetime))
	mustPair(t)(MakeNode(dir, "b", []string{"::1"}, Lifetime))
	mustPair(t)(MakeOperator(dir, "eve", Lifetime))
	return dir
}

func mustPair(t *testing.T) func(Pair, error) Pair {
	return func(p Pair, err error) Pair {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

func filesOf(dir, name string) config.TLS {
	p := pairIn(dir, name)
	return config.TLS{CA: filepath.Join(dir, "ca.crt"), Cert: p.Cert, Key: p.Key}
}

func open(t *testing.T, names config.TLS) *Files {
	t.Helper()
	f, err := Open(names, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// serve accepts connections until the test ends, and gives its address and who has come, or why not.
func serve(t *testing.T, f *Files) (addr string, came <-chan error, peers <-chan Peer) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	errs, ps := make(chan error, 16), make(chan Peer, 16)
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c := tls.Server(nc, f.ServerConfig())
			if err := c.Handshake(); err != nil {
				errs <- err
				c.Close()
				continue
			}
			p, err := PeerOf(c.ConnectionState())
			errs <- err
			ps <- p
			io.WriteString(c, "x")
			c.Close()
		}
	}()
	return ln.Addr().String(), errs, ps
}

// dial makes one connection; with TLS 1.3 only a read tells whether the server has taken the client's certificate.
func dial(addr string, c *tls.Config) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, c)
	if err != nil {
		return err
	}
	defer conn.Close()
	if v := conn.ConnectionState().Version; v != tls.VersionTLS13 {
		return errors.New("not TLS 1.3")
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func TestMutual(t *testing.T) {
	dir := cluster(t)
	addr, came, peers := serve(t, open(t, filesOf(dir, "a")))
	for name, want := range map[string]Peer{"b": {Name: "b"}, "eve": {Name: "eve", Operator: true}} {
		for _, as := range []string{"a", "127.0.0.1", "a.example.com"} {
			if err := dial(addr, open(t, filesOf(dir, name)).ClientConfig(as)); err != nil {
				t.Errorf("%s to %s: %v", name, as, err)
			}
			if err := <-came; err != nil {
				t.Errorf("%s: %v", name, err)
			} else if p := <-peers; p != want {
				t.Errorf("%s is taken for %+v", name, p)
			}
		}
	}
}

func TestServerRefuses(t *testing.T) {
	dir, foreign := cluster(t), cluster(t)
	addr, came, _ := serve(t, open(t, filesOf(dir, "a")))
	theirs := open(t, filesOf(foreign, "b")).current().cert
	for _, c := range []struct {
		what      string
		config    *tls.Config
		handshake bool // that is where it is refused, not by PeerOf
	}{
		{"no certificate", &tls.Config{}, true},
		{"another CA's", &tls.Config{Certificates: []tls.Certificate{theirs}}, true},
		{"an old version", &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{open(t, filesOf(dir, "b")).current().cert}}, true},
		{"an expired one", &tls.Config{Certificates: []tls.Certificate{expired(t, dir)}}, true},
		{"one for servers", &tls.Config{Certificates: []tls.Certificate{issued(t, dir, "web", x509.ExtKeyUsageServerAuth)}}, true},
		{"a stranger", &tls.Config{Certificates: []tls.Certificate{issued(t, dir, "", x509.ExtKeyUsageClientAuth)}}, false},
		{"a node without name", &tls.Config{Certificates: []tls.Certificate{issued(t, dir, "b2", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)}}, false},
	} {
		c.config.InsecureSkipVerify = true // the server is what is tested
		if err := dial(addr, c.config); (err != nil) != c.handshake {
			t.Errorf("%s: the handshake: %v", c.what, err)
		}
		if err := <-came; err == nil {
			t.Errorf("%s was taken", c.what)
		}
	}
	if p, err := PeerOf(tls.ConnectionState{PeerCertificates: []*x509.Certificate{theirs.Leaf}}); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("a certificate that nobody has verified: %+v, %v", p, err)
	}
}

// issued makes a certificate that isn't one of graphvol's, and reads it.
func issued(t *testing.T, dir, name string, use ...x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	ca, err := readCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := mustPair(t)(issue(t.TempDir(), "x", ca, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: use,
	}))
	kp, err := readKeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return kp.cert
}

func expired(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	p := mustPair(t)(MakeNode(dir, "late", nil, -time.Minute))
	kp, err := readKeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return kp.cert
}

// server answers with a certificate, whatever it is.
func server(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "x")
			c.Close()
		}
	}()
	return ln.Addr().String()
}

func TestClientRefuses(t *testing.T) {
	dir, foreign := cluster(t), cluster(t)
	client := open(t, filesOf(dir, "b"))
	mine := func(name string) tls.Certificate { return open(t, filesOf(dir, name)).current().cert }
	for _, c := range []struct {
		what, as string
		cert     tls.Certificate
		want     error
		text     string
	}{
		{"another CA", "a", open(t, filesOf(foreign, "a")).current().cert, ErrWrongCA, "isn't signed by the CA in " + dir + "/ca.crt"},
		{"another node", "a", mine("b"), ErrWrongName, "(b) is made out to [b ::1], not to a:"},
		{"another host", "127.0.0.2", mine("a"), ErrWrongName, "lacks --host 127.0.0.2"},
		{"an operator", "eve", mine("eve"), ErrWrongUse, "isn't for this use"},
		{"an expired one", "late", expired(t, dir), ErrExpired, "has expired on "},
	} {
		err := dial(server(t, c.cert), client.ClientConfig(c.as))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v with %q", c.what, err, c.want, c.text)
		}
	}
	if err := dial(server(t, mine("a")), client.ClientConfig("a")); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

// What the server would answer is no more than that it is bad.
func TestOwnExpired(t *testing.T) {
	dir := cluster(t)
	client := open(t, filesOf(dir, "b"))
	late := expired(t, dir)
	client.mu.now.keyPair = keyPair{cert: late, leaf: late.Leaf}
	addr, came, _ := serve(t, open(t, filesOf(dir, "a")))
	err := dial(addr, client.ClientConfig("a"))
	if !errors.Is(err, ErrExpired) || !strings.Contains(err.Error(), "the certificate "+filesOf(dir, "b").Cert+" (late) has expired") {
		t.Errorf("%v", err)
	}
	<-came
}

func TestOpenRefuses(t *testing.T) {
	dir, foreign := cluster(t), cluster(t)
	mustPair(t)(MakeNode(dir, "late", nil, -time.Minute))
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("junk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shared := filepath.Join(dir, "shared.key")
	if err := os.WriteFile(shared, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	a := filesOf(dir, "a")
	for _, c := range []struct {
		names config.TLS
		want  error
		text  string
	}{
		{config.TLS{CA: "/nowhere", Cert: a.Cert, Key: a.Key}, ErrUnreadable, "the certificate /nowhere can't be read: no such file"},
		{config.TLS{CA: a.CA, Cert: junk, Key: a.Key}, ErrUnreadable, "no certificate in PEM"},
		{config.TLS{CA: a.CA, Cert: a.Cert, Key: junk}, ErrUnreadable, "no key in PEM"},
		{config.TLS{CA: a.CA, Cert: a.Cert, Key: shared}, ErrUnreadable, "chmod 600 " + shared},
		{config.TLS{CA: a.CA, Cert: a.Cert, Key: filesOf(dir, "b").Key}, ErrWrongKey, "isn't that of the certificate " + a.Cert},
		{config.TLS{CA: filesOf(foreign, "a").CA, Cert: a.Cert, Key: a.Key}, ErrWrongCA, "(a) isn't signed by the CA in " + foreign},
		{filesOf(dir, "late"), ErrExpired, "(late) has expired on "},
	} {
		_, err := Open(c.names, slog.New(slog.DiscardHandler))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v, want %v with %q", c.names, err, c.want, c.text)
		}
	}
}

func TestCheckNode(t *testing.T) {
	dir := cluster(t)
	f := open(t, filesOf(dir, "a"))
	if err := f.CheckNode("a"); err != nil || f.Name() != "a" {
		t.Errorf("%v, %q", err, f.Name())
	}
	if err := f.CheckNode("b"); !errors.Is(err, ErrWrongName) || !strings.Contains(err.Error(), `is that of "a", and this node is called "b"`) {
		t.Errorf("another name: %v", err)
	}
	if err := open(t, filesOf(dir, "eve")).CheckNode("eve"); !errors.Is(err, ErrWrongUse) {
		t.Errorf("an operator's: %v", err)
	}
	if d := time.Until(f.Expires()); d > Lifetime || d < Lifetime-time.Minute {
		t.Errorf("expires in %v", d)
	}
}

// put exchanges a file as people do: another one is moved there.
func put(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+".new", raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

func TestRenewal(t *testing.T) {
	dir, next := cluster(t), cluster(t)
	var log bytes.Buffer
	f, err := Open(filesOf(dir, "a"), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	addr, came, peers := serve(t, f)
	client := open(t, filesOf(dir, "b"))
	toA := client.ClientConfig("a") // one for all connections, as gRPC has it
	meet := func(want bool) {
		t.Helper()
		err := dial(addr, toA)
		if there := <-came; (err == nil) != want || want && there != nil {
			t.Errorf("client: %v, server: %v, want %v", err, there, want)
		}
		if want {
			<-peers
		}
	}
	meet(true)
	before := f.current().leaf.SerialNumber
	// A renewal by the same CA, half of it first: what was there goes on.
	renewed := t.TempDir()
	for _, name := range []string{"ca.crt", "ca.key"} {
		put(t, filepath.Join(dir, name), filepath.Join(renewed, name))
	}
	p := mustPair(t)(MakeNode(renewed, "a", nil, Lifetime))
	put(t, p.Key, filepath.Join(dir, "a.key"))
	meet(true)
	if !strings.Contains(log.String(), "stay in force") || f.current().leaf.SerialNumber.Cmp(before) != 0 {
		t.Errorf("half a renewal: %s", &log)
	}
	put(t, p.Cert, filepath.Join(dir, "a.crt"))
	meet(true)
	if f.current().leaf.SerialNumber.Cmp(before) == 0 || !strings.Contains(log.String(), "are in force") {
		t.Errorf("the renewed certificate isn't used: %s", &log)
	}
	// A second CA beside the first.
	second, err := os.ReadFile(filepath.Join(next, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), append(first, second...), 0o600); err != nil {
		t.Fatal(err)
	}
	newcomer := open(t, config.TLS{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(next, "b.crt"), Key: filepath.Join(next, "b.key")})
	if err := dial(addr, newcomer.ClientConfig("a")); err != nil {
		t.Errorf("a certificate of the second CA: %v", err)
	}
	<-came
	<-peers
	// Another CA: on one side nobody is trusted, on both all is well.
	for _, name := range []string{"ca.crt", "a.crt", "a.key"} {
		put(t, filepath.Join(next, name), filepath.Join(dir, name))
	}
	meet(false)
	for _, name := range []string{"b.crt", "b.key"} {
		put(t, filepath.Join(next, name), filepath.Join(dir, name))
	}
	meet(true)
}
