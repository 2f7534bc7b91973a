// Package reach is how an agent is reached: what commands know of it.
package reach

import (
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	// KeepaliveTime and KeepaliveTimeout find a connection that is cut without a word; gRPC allows no shorter time.
	KeepaliveTime    = 10 * time.Second
	KeepaliveTimeout = 5 * time.Second
	// CallTimeout bounds a call that is answered at once, and making a connection.
	CallTimeout = 2 * time.Second
	// maxAnswer is for lists of snapshots with their manifests, which grow with every snapshot: gRPC's own bound of 4 MiB comes too soon.
	maxAnswer = 1 << 30
)

// SocketPath is where the agent with a state directory listens for commands of its machine.
func SocketPath(state string) string { return filepath.Join(state, "agent.sock") }

// Dial makes a connection to an agent, "HOST:PORT" or "unix:PATH". Nothing is sent before it is used.
func Dial(address string, creds credentials.TransportCredentials, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: KeepaliveTime, Timeout: KeepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: CallTimeout,
		}),
	}, opts...)...)
}
