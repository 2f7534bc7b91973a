package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"graphvol/agent/config"
)

// Files are the files of one node or operator, read again when they change. All methods may be called at the same time.
type Files struct {
	names config.TLS
	log   *slog.Logger

	mu struct {
		sync.Mutex
		stamp [3]os.FileInfo // of the files as they were when last looked at; nil: not there
		now   *material      // what is in force
	}
}

// material is what was read of the files at one time. It doesn't change.
type material struct {
	keyPair
	roots *x509.CertPool
	sum   [sha256.Size]byte // of the CA's certificates, in the order of their file
}

// Open reads the files, and refuses those that nobody would take. log is told of renewals, and of files that were exchanged and can't be used.
func Open(names config.TLS, log *slog.Logger) (*Files, error) {
	f := &Files{names: names, log: log}
	f.mu.stamp = f.stamps()
	m, err := read(names)
	if err != nil {
		return nil, err
	}
	f.mu.now = m
	return f, nil
}

func read(names config.TLS) (*material, error) {
	roots := x509.NewCertPool()
	cas, err := readCerts(names.CA)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	for _, c := range cas {
		roots.AddCert(c)
		sum.Write(c.Raw)
	}
	p, err := readKeyPair(names.Cert, names.Key)
	if err != nil {
		return nil, err
	}
	m := &material{keyPair: *p, roots: roots, sum: [sha256.Size]byte(sum.Sum(nil))}
	return m, m.verify(p.cert.Certificate, "the certificate "+names.Cert, names.CA, "", x509.ExtKeyUsageClientAuth)
}

// stamps tells what the files are like. They are followed where they are links: that is how whole directories of certificates are exchanged.
func (f *Files) stamps() (s [3]os.FileInfo) {
	for i, path := range []string{f.names.CA, f.names.Cert, f.names.Key} {
		if st, err := os.Stat(path); err == nil {
			s[i] = st
		}
	}
	return s
}

func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && a.Mode() == b.Mode()
}

// current returns what is in force, after another look at the files.
func (f *Files) current() *material {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stamps()
	if same(s[0], f.mu.stamp[0]) && same(s[1], f.mu.stamp[1]) && same(s[2], f.mu.stamp[2]) {
		return f.mu.now
	}
	f.mu.stamp = s
	m, err := read(f.names)
	if err != nil {
		f.log.Warn("the certificate's files have changed and can't be used; those that were read before stay in force", "err", err, "expires", f.mu.now.leaf.NotAfter)
		return f.mu.now
	}
	f.log.Info("the certificate's files have changed and are in force", "cert", f.names.Cert, "expires", m.leaf.NotAfter)
	f.mu.now = m
	return m
}

// Expires is when the certificate in force ends.
func (f *Files) Expires() time.Time { return f.current().leaf.NotAfter }

// Roots is the SHA-256 of the CA's certificates in force: those who read the CA's file by themselves, and once, compare it with what it was.
func (f *Files) Roots() [sha256.Size]byte { return f.current().sum }

// Name is whose certificate it is.
func (f *Files) Name() string { return f.current().leaf.Subject.CommonName }

// CheckNode tells whether a node of a name can be a server with the certificate.
func (f *Files) CheckNode(name string) error {
	m := f.current()
	what := "the certificate " + f.names.Cert
	if cn := m.leaf.Subject.CommonName; cn != name {
		return &Error{fmt.Sprintf("%s is that of %q, and this node is called %q: make one for it (graphvol cert node DIR %s), or set node: name", what, cn, name, name), ErrWrongName}
	}
	return m.verify(m.cert.Certificate, what, f.names.CA, name, x509.ExtKeyUsageServerAuth)
}

// ServerConfig is for a server whose clients show certificates of the CA. PeerOf tells who they are.
func (f *Files) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := f.current()
			return &tls.Config{
				MinVersion:   tls.VersionTLS13,
				Certificates: []tls.Certificate{m.cert},
				ClientAuth:   tls.RequireAndVerifyClientCert,
				ClientCAs:    m.roots,
				// A ticket would let a client in after its CA was exchanged.
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// ClientConfig is for a client of the node of a name; whom it reaches must have that node's certificate. It may be a host's name or an IP address as well.
func (f *Files) ClientConfig(name string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: name,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			m := f.current()
			// The server would say no more than that the certificate is bad.
			if err := m.verify(m.cert.Certificate, "the certificate "+f.names.Cert, f.names.CA, "", x509.ExtKeyUsageClientAuth); err != nil {
				return nil, err
			}
			return &m.cert, nil
		},
		// VerifyConnection does the same and more: with RootCAs the CA could not be exchanged while the program runs.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			var chain [][]byte
			for _, c := range s.PeerCertificates {
				chain = append(chain, c.Raw)
			}
			return f.current().verify(chain, "the certificate that "+name+" shows", f.names.CA, name, x509.ExtKeyUsageServerAuth)
		},
	}
}
