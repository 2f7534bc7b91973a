package traceid

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
)

// ServerOption has the contexts of a server's calls belong to the spans of their callers.
func ServerOption() grpc.ServerOption { return grpc.StatsHandler(tagger{incoming}) }

// DialOption tells the server which span a call belongs to.
func DialOption() grpc.DialOption { return grpc.WithStatsHandler(tagger{outgoing}) }

func incoming(ctx context.Context) context.Context {
	for _, text := range metadata.ValueFromIncomingContext(ctx, parent) {
		ctx = With(ctx, text)
	}
	return ctx
}

func outgoing(ctx context.Context) context.Context {
	if text := Parent(ctx); text != "" {
		return metadata.AppendToOutgoingContext(ctx, parent, text)
	}
	return ctx
}

// tagger is a stats handler since that sees the contexts of all calls, streams as well, before any message; figures it takes none.
type tagger struct {
	tag func(context.Context) context.Context
}

var _ stats.Handler = tagger{}

// TagRPC implements stats.Handler.
func (t tagger) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return t.tag(ctx) }

// HandleRPC implements stats.Handler.
func (tagger) HandleRPC(context.Context, stats.RPCStats) {}

// TagConn implements stats.Handler.
func (tagger) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (tagger) HandleConn(context.Context, stats.ConnStats) {}
