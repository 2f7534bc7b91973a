package traceid

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// LogHandler adds trace_id and span_id of the context to every line that h writes, outside all groups. Lines must be logged with their context (InfoContext and its relatives).
func LogHandler(h slog.Handler) slog.Handler { return &logHandler{Handler: h, outer: h} }

type logHandler struct {
	slog.Handler
	outer slog.Handler // without groups, and what was added since the first
	inner []func(slog.Handler) slog.Handler
}

// Handle implements slog.Handler.
func (l *logHandler) Handle(ctx context.Context, r slog.Record) error {
	s := trace.SpanContextFromContext(ctx)
	if !s.IsValid() {
		return l.Handler.Handle(ctx, r)
	}
	h := l.outer.WithAttrs([]slog.Attr{slog.String("trace_id", s.TraceID().String()), slog.String("span_id", s.SpanID().String())})
	for _, add := range l.inner {
		h = add(h)
	}
	return h.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(l.inner) == 0 {
		return LogHandler(l.Handler.WithAttrs(attrs))
	}
	return l.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (l *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return l
	}
	return l.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (l *logHandler) with(add func(slog.Handler) slog.Handler) slog.Handler {
	return &logHandler{Handler: add(l.Handler), outer: l.outer, inner: append(l.inner[:len(l.inner):len(l.inner)], add)}
}
