package traceid

import (
	"context"
	"crypto/rand"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// parent is what W3C Trace Context, and gRPC's metadata, call it.
const parent = "traceparent"

// New begins a trace: what is done with its context belongs to that.
func New(ctx context.Context) context.Context {
	c := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled}
	rand.Read(c.TraceID[:])
	rand.Read(c.SpanID[:])
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(c))
}

// Of is the id of the trace that a context belongs to, as logs and collectors write it; empty: to none.
func Of(ctx context.Context) string {
	if s := trace.SpanContextFromContext(ctx); s.IsValid() {
		return s.TraceID().String()
	}
	return ""
}

// Parent is what With needs to go on with the trace; empty: there is none.
func Parent(ctx context.Context) string {
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return c.Get(parent)
}

// With gives a context that belongs to a trace which Parent has told, maybe in another process. It is ctx if that can't be read.
func With(ctx context.Context, text string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{parent: text})
}

// Follow gives a context that belongs to the trace of another, and ends with ctx: for what goes on without who asked for it.
func Follow(ctx, asked context.Context) context.Context {
	if s := trace.SpanContextFromContext(asked); s.IsValid() {
		return trace.ContextWithSpanContext(ctx, s)
	}
	return ctx
}
