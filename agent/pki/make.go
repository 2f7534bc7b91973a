package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"graphvol/agent/config"
	"graphvol/internal/durable"
)

const (
	caName     = "ca"
	caLifetime = 10 * 365 * 24 * time.Hour
	// early is how far the clocks of nodes may be apart when a certificate is new.
	early = time.Hour
)

// Lifetime is how long a certificate is valid if nobody says otherwise: not as long as its CA, so that renewing stays something that people can do.
const Lifetime = 2 * 365 * 24 * time.Hour

// hostName is compiled when it is needed: it is large, and all of graphvol's processes would wait for it.
var hostName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`) })

// Pair are the files of a certificate and its key.
type Pair struct{ Cert, Key string }

// MakeCA makes a cluster's CA in a directory, which is made if it is missing: ca.crt (mode 0644) and ca.key (mode 0600). Files that are there already stay, and are an error.
func MakeCA(dir, cluster string) (Pair, error) {
	if err := config.CheckName(cluster); err != nil {
		return Pair{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Pair{}, fmt.Errorf("the directory of the CA can't be made: %w", err)
	}
	return issue(dir, caName, nil, &x509.Certificate{
		Subject:               pkix.Name{CommonName: cluster, Organization: []string{"graphvol CA"}},
		NotAfter:              time.Now().Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	})
}

// MakeNode makes the certificate of a node with the CA in a directory: NAME.crt (mode 0644) and NAME.key (mode 0600). hosts are the names and IP addresses by which it is reached, beside its name.
// It is valid for lifetime, or as long as its CA, if that is shorter.
func MakeNode(dir, name string, hosts []string, lifetime time.Duration) (Pair, error) {
	if err := checkName(name); err != nil {
		return Pair{}, err
	}
	c := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{"graphvol node"}},
		NotAfter:    time.Now().Add(lifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range append([]string{name}, hosts...) {
		switch ip := net.ParseIP(h); {
		case ip != nil:
			c.IPAddresses = append(c.IPAddresses, ip)
		case hostName().MatchString(h):
			c.DNSNames = append(c.DNSNames, h)
		default: // a pattern among them, by which a node could pass for another
			return Pair{}, fmt.Errorf("host %q: it must be a host's name or an IP address, without a port", h)
		}
	}
	return makeLeaf(dir, c)
}

// MakeOperator makes the certificate of somebody who asks nodes, and isn't one.
func MakeOperator(dir, name string, lifetime time.Duration) (Pair, error) {
	if err := checkName(name); err != nil {
		return Pair{}, err
	}
	return makeLeaf(dir, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: []string{"graphvol operator"}},
		NotAfter:    time.Now().Add(lifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func checkName(name string) error {
	if name == caName {
		return fmt.Errorf("name %q: that is what the files of the CA are called, choose another", name)
	}
	return config.CheckName(name)
}

func makeLeaf(dir string, c *x509.Certificate) (Pair, error) {
	ca, err := readCA(dir)
	if err != nil {
		return Pair{}, err
	}
	if c.NotAfter.After(ca.leaf.NotAfter) {
		c.NotAfter = ca.leaf.NotAfter
	}
	c.KeyUsage = x509.KeyUsageDigitalSignature
	return issue(dir, c.Subject.CommonName, ca, c)
}

func readCA(dir string) (*keyPair, error) {
	p := pairIn(dir, caName)
	if _, err := os.Lstat(p.Cert); errors.Is(err, os.ErrNotExist) {
		return nil, &Error{fmt.Sprintf("there is no CA in %s: make one with graphvol cert ca", dir), ErrUnreadable}
	}
	ca, err := readKeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, err
	}
	if !ca.leaf.IsCA {
		return nil, &Error{fmt.Sprintf("the certificate %s isn't that of a CA, so it can't sign others", p.Cert), ErrWrongUse}
	}
	if time.Now().After(ca.leaf.NotAfter) {
		return nil, &Error{fmt.Sprintf("the CA %s has expired on %s: make a new one in another directory, and certificates of it for all nodes", p.Cert, date(ca.leaf.NotAfter)), ErrExpired}
	}
	return ca, nil
}

func pairIn(dir, name string) Pair {
	return Pair{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
}

// issue makes a key, and a certificate for it that ca signs, or the key itself if there is no ca.
func issue(dir, name string, ca *keyPair, c *x509.Certificate) (Pair, error) {
	p := pairIn(dir, name)
	for _, path := range []string{p.Cert, p.Key} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return p, fmt.Errorf("%s is there already, and nothing was changed: to make a new one, move it and its other half (%s.crt, %s.key) away first", path, name, name)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return p, fmt.Errorf("make a key: %w", err)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return p, fmt.Errorf("make a serial number: %w", err)
	}
	c.NotBefore = time.Now().Add(-early)
	parent, signer := c, any(key)
	if ca != nil {
		parent, signer = ca.leaf, ca.cert.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		return p, fmt.Errorf("make the certificate of %s: %w", name, err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return p, fmt.Errorf("make the key of %s: %w", name, err)
	}
	if err := writeNew(p.Key, "PRIVATE KEY", secret, 0o600); err != nil {
		return p, err
	}
	if err := writeNew(p.Cert, "CERTIFICATE", der, 0o644); err != nil {
		return p, errors.Join(err, os.Remove(p.Key))
	}
	return p, durable.SyncDir(dir)
}

// writeNew writes a file that isn't there yet. Its mode is exact, whatever the umask.
func writeNew(path, kind string, der []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der}); err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
