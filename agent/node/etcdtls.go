package node

import (
	"context"
	"log/slog"
	"net"

	"google.golang.org/grpc/credentials"

	"graphvol/agent/pki"
)

// etcdTLS is that of a client of an etcd elsewhere. Each of its members has a certificate of its own, and must show it for the host that it is asked at.
type etcdTLS struct {
	credentials.TransportCredentials // what no client asks for
	certs                            *pki.Files
	log                              *slog.Logger
}

// newEtcdTLS gives nil if there are no certificates.
func newEtcdTLS(certs *pki.Files, log *slog.Logger) credentials.TransportCredentials {
	if certs == nil {
		return nil
	}
	return etcdTLS{credentials.NewTLS(certs.ClientConfig("")), certs, log}
}

// ClientHandshake implements credentials.TransportCredentials.
func (e etcdTLS) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority
	}
	c, info, err := credentials.NewTLS(e.certs.ClientConfig(host)).ClientHandshake(ctx, host, conn)
	if err != nil && ctx.Err() == nil {
		e.log.Warn("a member of etcd can't be talked to", "member", authority, "err", err) // who asks it is told of a time-out only
	}
	return c, info, err
}

// Clone implements credentials.TransportCredentials.
func (e etcdTLS) Clone() credentials.TransportCredentials { return e }
