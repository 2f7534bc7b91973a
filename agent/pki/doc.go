// Package pki makes the certificates by which the nodes of a cluster and its operators know each other, and uses them.
//
// A cluster has one CA, whose key stays with who runs the cluster. Each node has a certificate of it for servers and clients; an operator has one for clients alone. The common name of a certificate
// is the name of the node or of the operator. A node's is among its DNS names too (or IP addresses, if it is one), and so are the hosts by which it is reached. Certificates of another CA do as well
// if they are like that.
//
// Both sides of a connection show a certificate, with TLS 1.3 and nothing older. A client demands the certificate of the node that it means: one of another node isn't taken, though the CA has
// signed it.
//
// Files are read again when they have changed, so a certificate is renewed by putting a new one in the place of the old. While the files don't fit each other (one was exchanged, the other not
// yet) or can't be used, those that were read before stay in force, and the log says why.
package pki

import "errors"

// What can be wrong with a certificate, a node's own or one that another side shows.
var (
	ErrUnreadable = errors.New("can't be read")
	ErrExpired    = errors.New("isn't valid at this time")
	ErrWrongCA    = errors.New("is of another CA")
	ErrWrongName  = errors.New("is made out to somebody else")
	ErrWrongUse   = errors.New("isn't for this use")
	ErrWrongKey   = errors.New("isn't that of the key")
	// ErrNoCertificate: nobody has shown one that was verified.
	ErrNoCertificate = errors.New("no verified certificate")
)

// Error is what is wrong with which certificate, in one line that says what to do. Is finds the sentinels above in it.
type Error struct {
	Text string
	Err  error
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error { return e.Err }
