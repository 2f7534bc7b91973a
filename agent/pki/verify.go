package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Peer is who stands on the other side of a connection.
type Peer struct {
	Name     string
	Operator bool // a person's certificate, not a node's
}

// PeerOf tells who a client is, by the certificate that the server (ServerConfig) has verified.
func PeerOf(s tls.ConnectionState) (Peer, error) {
	if len(s.VerifiedChains) == 0 {
		return Peer{}, &Error{"the other side has shown no certificate", ErrNoCertificate}
	}
	c := s.VerifiedChains[0][0]
	p := Peer{Name: c.Subject.CommonName, Operator: !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)}
	if p.Name == "" {
		return Peer{}, &Error{fmt.Sprintf("the certificate of the other side (serial number %x) names nobody: it needs a common name", c.SerialNumber), ErrWrongName}
	}
	// Otherwise a certificate for a web server could pass for a node's.
	if !p.Operator && c.VerifyHostname(p.Name) != nil {
		return Peer{}, &Error{fmt.Sprintf("the certificate of %s doesn't have that name among its DNS names, so it isn't taken for a node's", p.Name), ErrWrongName}
	}
	return p, nil
}

// verify checks a chain of certificates, the own or another's, against the CA. An empty name is not compared.
func (m *material) verify(chain [][]byte, what, ca, name string, use x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return &Error{what + ": there is none", ErrNoCertificate}
	}
	opts := x509.VerifyOptions{Roots: m.roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{use}}
	var leaf *x509.Certificate
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return &Error{fmt.Sprintf("%s can't be read: %v", what, err), ErrUnreadable}
		}
		if i == 0 {
			leaf = c
		} else {
			opts.Intermediates.AddCert(c)
		}
	}
	what = fmt.Sprintf("%s (%s)", what, leaf.Subject.CommonName)
	// The time first: Verify looks for the CA before, and an expired one of the same name would be called another.
	if now := time.Now(); now.After(leaf.NotAfter) {
		return &Error{fmt.Sprintf("%s has expired on %s: make a new one (graphvol cert node) and put it in the place of the old", what, date(leaf.NotAfter)), ErrExpired}
	} else if now.Before(leaf.NotBefore) {
		return &Error{fmt.Sprintf("%s is valid from %s on, and the clock of this machine says %s: set it", what, date(leaf.NotBefore), date(now)), ErrExpired}
	}
	if _, err := leaf.Verify(opts); err != nil {
		return explain(err, what, ca)
	}
	if name != "" && leaf.VerifyHostname(name) != nil {
		return &Error{fmt.Sprintf("%s is made out to %s, not to %s: another node may answer at its address, or the certificate lacks --host %s", what, names(leaf), name, name), ErrWrongName}
	}
	return nil
}

func explain(err error, what, ca string) error {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		switch invalid.Reason {
		case x509.Expired:
			return &Error{fmt.Sprintf("%s is signed by a CA in %s that isn't valid at this time: make a new CA, and certificates of it", what, ca), ErrExpired}
		case x509.IncompatibleUsage:
			return &Error{what + " isn't for this use: a node's must be for servers and clients (graphvol cert node), an operator's is for clients alone", ErrWrongUse}
		}
	}
	return &Error{fmt.Sprintf("%s isn't signed by the CA in %s: all of a cluster need certificates of one CA (%v)", what, ca, err), ErrWrongCA}
}

func names(c *x509.Certificate) (all []string) {
	all = slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}
