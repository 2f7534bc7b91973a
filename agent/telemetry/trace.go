package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

const (
	tracerName = "graphvol"
	// complainEvery is how often the log is told that traces can't be sent.
	complainEvery = 10 * time.Minute
)

// TraceOptions say where traces go, and whose they are.
type TraceOptions struct {
	URL     string // of an OTLP collector that speaks gRPC, http://HOST:4317 or https://HOST:4317; empty: none. Credentials come from OTEL_EXPORTER_OTLP_HEADERS
	Node    string
	Cluster string
	Version string
	// Quiet are full names of gRPC methods (/package.Service/Method), or beginnings of such that end with a slash, of which no spans are made: those that come every second.
	Quiet []string
}

// Tracing makes spans. All methods may be called at the same time.
type Tracing struct {
	provider *sdktrace.TracerProvider
	exporter *exporter // nil: none
	tracer   trace.Tracer
	grpc     []otelgrpc.Option
}

// StartTracing doesn't wait for the collector, which may come and go.
func StartTracing(ctx context.Context, o TraceOptions, log *slog.Logger) (*Tracing, error) {
	opts := []sdktrace.TracerProviderOption{
		// Snapshots are rare, so all of them are traced.
		sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "graphvol"), attribute.String("service.version", o.Version),
			attribute.String("service.namespace", o.Cluster), attribute.String("service.instance.id", o.Node),
		)),
	}
	t := &Tracing{}
	if o.URL != "" {
		e, err := newExporter(ctx, o.URL, log)
		if err != nil {
			return nil, err
		}
		t.exporter = e
		opts = append(opts, sdktrace.WithBatcher(e))
	}
	t.provider = sdktrace.NewTracerProvider(opts...)
	t.tracer = t.provider.Tracer(tracerName)
	t.grpc = []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithPropagators(propagation.TraceContext{}), otelgrpc.WithMeterProvider(noop.NewMeterProvider()),
		otelgrpc.WithFilter(func(i *stats.RPCTagInfo) bool { return !isQuiet(o.Quiet, i.FullMethodName) }),
	}
	return t, nil
}

func isQuiet(quiet []string, method string) bool {
	return slices.ContainsFunc(quiet, func(q string) bool { return q == method || strings.HasSuffix(q, "/") && strings.HasPrefix(method, q) })
}

// ServerOption makes a span of every call that a server answers, part of the caller's trace if it has one.
func (t *Tracing) ServerOption() grpc.ServerOption {
	return grpc.StatsHandler(otelgrpc.NewServerHandler(t.grpc...))
}

// DialOption makes a span of every call of a client, and tells the server.
func (t *Tracing) DialOption() grpc.DialOption {
	return grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.grpc...))
}

// Start begins a span: of the trace in ctx, or of a new one. attrs are names and values in turn. Its context is for what belongs to it, log lines too; end must be called once, with what has become of it.
func (t *Tracing) Start(ctx context.Context, name string, attrs ...string) (_ context.Context, end func(error)) {
	var all []attribute.KeyValue
	for pair := range slices.Chunk(attrs, 2) {
		all = append(all, attribute.String(pair[0], strings.Join(pair[1:], "")))
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithAttributes(all...))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

// Close sends what wasn't sent yet, until ctx ends.
func (t *Tracing) Close(ctx context.Context) error {
	err := t.provider.Shutdown(ctx)
	if err != nil && t.exporter != nil { // what is being sent would be tried on for half a minute
		t.exporter.Shutdown(ctx)
	}
	if err != nil {
		return fmt.Errorf("the last traces could not be sent: %w", err)
	}
	return nil
}

// exporter sends spans, and complains itself: otel would do it on standard error, for every batch.
type exporter struct {
	sdktrace.SpanExporter
	url string
	log *slog.Logger

	mu struct {
		sync.Mutex
		complained time.Time
	}
}

func newExporter(ctx context.Context, text string, log *slog.Logger) (*exporter, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("node: traces %q: write it as http://HOST:4317 or https://HOST:4317", text)
	}
	if u.Port() == "" {
		u.Host += ":4317"
	}
	e, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(u.Scheme+"://"+u.Host))
	if err != nil {
		return nil, fmt.Errorf("traces can't be sent to %s: %w", text, err)
	}
	return &exporter{SpanExporter: e, url: text, log: log}, nil
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil && !e.mu.complained.IsZero():
		e.mu.complained = time.Time{}
		e.log.Info("traces can be sent again", "collector", e.url)
	case err != nil && !errors.Is(err, context.Canceled) && time.Since(e.mu.complained) > complainEvery:
		e.mu.complained = time.Now()
		e.log.Warn("traces can't be sent and are dropped", "collector", e.url, "err", err)
	}
	return nil
}
