package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"graphvol/agent/api"
	"graphvol/agent/pki"
)

// caller is the context of a call by who shows a certificate; nil: without TLS.
func caller(cert *x509.Certificate) context.Context {
	p := &peer.Peer{}
	if cert != nil {
		p.AuthInfo = credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}}
	}
	return peer.NewContext(context.Background(), p)
}

func certificate(t *testing.T, p pki.Pair, err error) *x509.Certificate {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func TestOperatorsAreNoNodes(t *testing.T) {
	dir := t.TempDir()
	if _, err := pki.MakeCA(dir, "c"); err != nil {
		t.Fatal(err)
	}
	p, err := pki.MakeNode(dir, "a", nil, pki.Lifetime)
	node := certificate(t, p, err)
	p, err = pki.MakeOperator(dir, "eve", pki.Lifetime)
	operator := certificate(t, p, err)
	for _, c := range []struct {
		cert   *x509.Certificate
		method string
		want   codes.Code
	}{
		{node, api.Node_Drop_FullMethodName, codes.OK},
		{operator, api.Node_Drop_FullMethodName, codes.PermissionDenied},
		{operator, api.Node_Part_FullMethodName, codes.PermissionDenied},
		{operator, api.Cluster_TakeSnapshot_FullMethodName, codes.OK},
		{nil, api.Node_Drop_FullMethodName, codes.OK},
	} {
		if err := authorize(caller(c.cert), c.method); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %s", c.method, err, c.want)
		}
	}
	if err := authorize(context.Background(), api.Node_Drop_FullMethodName); status.Code(err) != codes.Unauthenticated {
		t.Errorf("nobody: %v", err)
	}
}
