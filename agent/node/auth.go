package node

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"graphvol/agent/api"
	"graphvol/agent/pki"
)

// authorize refuses what a caller may not ask: an operator's certificate is for the Cluster service alone. Who comes without TLS is this machine's root, or comes over loopback.
func authorize(ctx context.Context, method string) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "nobody knows who asks")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || !strings.HasPrefix(method, "/"+api.Node_ServiceDesc.ServiceName+"/") {
		return nil
	}
	who, err := pki.PeerOf(info.State)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	if who.Operator {
		return status.Errorf(codes.PermissionDenied, "%s may not call %s, which is for nodes: an operator's certificate is for graphvol cluster", who.Name, method)
	}
	return nil
}

// authorized are the options of a server that asks authorize.
func authorized() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if err := authorize(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return handle(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if err := authorize(stream.Context(), info.FullMethod); err != nil {
				return err
			}
			return handle(srv, stream)
		}),
	}
}
