package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// keyPair is a certificate with its key.
type keyPair struct {
	cert tls.Certificate
	leaf *x509.Certificate
}

func readKeyPair(certPath, keyPath string) (*keyPair, error) {
	certs, err := readCerts(certPath)
	if err != nil {
		return nil, err
	}
	key, err := readKey(keyPath)
	if err != nil {
		return nil, err
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(certs[0].PublicKey) {
		return nil, &Error{fmt.Sprintf("the key %s isn't that of the certificate %s: put the two files that were made together in place", keyPath, certPath), ErrWrongKey}
	}
	p := &keyPair{leaf: certs[0], cert: tls.Certificate{PrivateKey: key, Leaf: certs[0]}}
	for _, c := range certs {
		p.cert.Certificate = append(p.cert.Certificate, c.Raw)
	}
	return p, nil
}

// readCerts reads one certificate or more.
func readCerts(path string) ([]*x509.Certificate, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable("certificate", path, err)
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, unreadable("certificate", path, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, unreadable("certificate", path, errors.New("it has no certificate in PEM"))
	}
	return certs, nil
}

func readKey(path string) (crypto.Signer, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, unreadable("key", path, err)
	}
	if perm := st.Mode().Perm(); perm&0o007 != 0 {
		return nil, &Error{fmt.Sprintf("the key %s has mode %#o, so everybody may read or write it: chmod 600 %s", path, perm, path), ErrUnreadable}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable("key", path, err)
	}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		key, err := parseKey(block)
		if err != nil {
			return nil, unreadable("key", path, err)
		}
		return key, nil
	}
	return nil, unreadable("key", path, errors.New("it has no key in PEM"))
}

func parseKey(block *pem.Block) (crypto.Signer, error) {
	switch block.Type {
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		if s, ok := key.(crypto.Signer); ok {
			return s, nil
		}
	}
	return nil, fmt.Errorf("a key of the kind %q can't be used; it must be PKCS#8, EC or RSA, without a passphrase", block.Type)
}

// unreadable tells of a file; errors of the system name it again, which says nothing more.
func unreadable(kind, path string, err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return &Error{fmt.Sprintf("the %s %s can't be read: %v", kind, path, err), ErrUnreadable}
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
