package telemetry

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"graphvol/agent/traceid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is an OTLP collector.
type sink struct {
	collector.UnimplementedTraceServiceServer
	mu struct {
		sync.Mutex
		spans map[string]*otlp.Span // by node and name
	}
}

func (s *sink) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		node := ""
		for _, a := range r.GetResource().GetAttributes() {
			if a.GetKey() == "service.instance.id" {
				node = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range r.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				s.mu.spans[node+" "+span.GetKind().String()[len("SPAN_KIND_"):]+" "+span.GetName()] = span
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func serve(t *testing.T, register func(*grpc.Server), opts ...grpc.ServerOption) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	register(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ln)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return ln.Addr().String()
}

// node is an agent's server: it answers a health check, and asks the next node first.
type node struct {
	grpc_health_v1.UnimplementedHealthServer
	tracing *Tracing
	log     bytes.Buffer
	next    grpc_health_v1.HealthClient
}

func (n *node) Check(ctx context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	slog.New(traceid.LogHandler(slog.NewJSONHandler(&n.log, nil))).InfoContext(ctx, "asked")
	if n.next != nil {
		ctx, end := n.tracing.Start(ctx, "ask the next")
		res, err := n.next.Check(ctx, req)
		end(err)
		return res, err
	}
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

func startNode(t *testing.T, name, url string, next string, quiet ...string) (*node, string) {
	t.Helper()
	tracing, err := StartTracing(t.Context(), TraceOptions{URL: url, Node: name, Cluster: "graph", Quiet: quiet}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{tracing: tracing}
	if next != "" {
		n.next = client(t, tracing, next)
	}
	return n, serve(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, n) }, tracing.ServerOption())
}

func client(t *testing.T, tracing *Tracing, addr string) grpc_health_v1.HealthClient {
	t.Helper()
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), tracing.DialOption())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return grpc_health_v1.NewHealthClient(cc)
}

// A trace that was begun by a command, which makes no spans, goes on in an agent.
func TestTraceOfCommand(t *testing.T) {
	n, addr := startNode(t, "a", "", "")
	defer closeAll(t, n.tracing)
	cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), traceid.DialOption())
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx := traceid.New(t.Context())
	if _, err := grpc_health_v1.NewHealthClient(cc).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if text := n.log.String(); !strings.Contains(text, `"trace_id":"`+traceid.Of(ctx)+`"`) {
		t.Errorf("trace %s, want in %s", traceid.Of(ctx), text)
	}
}

func closeAll(t *testing.T, all ...*Tracing) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, tr := range all {
		if err := tr.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

const check = "grpc.health.v1.Health/Check"

func TestTrace(t *testing.T) {
	s := &sink{}
	s.mu.spans = make(map[string]*otlp.Span)
	url := "http://" + serve(t, func(g *grpc.Server) { collector.RegisterTraceServiceServer(g, s) })
	b, addrB := startNode(t, "b", url, "")
	a, addrA := startNode(t, "a", url, addrB)
	cli, err := StartTracing(t.Context(), TraceOptions{Node: "cli"}, slog.New(slog.DiscardHandler)) // no collector, and a trace of its own
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := cli.Start(t.Context(), "snapshot")
	if _, err := client(t, cli, addrA).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	end(nil)
	closeAll(t, a.tracing, b.tracing, cli)
	s.mu.Lock()
	defer s.mu.Unlock()
	id := traceid.Of(ctx)
	if len(id) != 32 {
		t.Errorf("the trace's id is %q", id)
	}
	parent := ""
	for _, name := range []string{"a SERVER " + check, "a INTERNAL ask the next", "a CLIENT " + check, "b SERVER " + check} {
		span := s.mu.spans[name]
		if span == nil {
			t.Fatalf("no span %s in %v", name, s.mu.spans)
		}
		if got := hex.EncodeToString(span.GetTraceId()); got != id {
			t.Errorf("%s: trace %s, want %s", name, got, id)
		}
		if parent != "" && hex.EncodeToString(span.GetParentSpanId()) != parent {
			t.Errorf("%s: its parent isn't the one before", name)
		}
		parent = hex.EncodeToString(span.GetSpanId())
	}
	for name, n := range map[string]*node{"a": a, "b": b} {
		var line struct {
			Trace string `json:"trace_id"`
			Span  string `json:"span_id"`
		}
		if err := json.Unmarshal(n.log.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if want := hex.EncodeToString(s.mu.spans[name+" SERVER "+check].GetSpanId()); line.Trace != id || line.Span != want {
			t.Errorf("%s logs %s, want trace %s and span %s", name, &n.log, id, want)
		}
	}
}

func TestSpans(t *testing.T) {
	s := &sink{}
	s.mu.spans = make(map[string]*otlp.Span)
	url := "http://" + serve(t, func(g *grpc.Server) { collector.RegisterTraceServiceServer(g, s) })
	for name, quiet := range map[string][]string{"": nil, "by name": {"/" + check}, "by service": {"/grpc.health.v1.Health/"}, "another": {"/grpc.health.v1.Health"}} {
		clear(s.mu.spans)
		a, addr := startNode(t, "a", url, "", quiet...)
		if _, err := client(t, a.tracing, addr).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		_, end := a.tracing.Start(t.Context(), "fails", "volume", "graph")
		end(errors.New("the disk was full"))
		closeAll(t, a.tracing)
		s.mu.Lock()
		want := map[string]int{"": 3, "by name": 1, "by service": 1, "another": 3}[name]
		if len(s.mu.spans) != want {
			t.Errorf("quiet %q: %d spans, want %d", name, len(s.mu.spans), want)
		}
		if st := s.mu.spans["a INTERNAL fails"].GetStatus(); st.GetCode() != otlp.Status_STATUS_CODE_ERROR || st.GetMessage() != "the disk was full" {
			t.Errorf("status %v", st)
		}
		if a := s.mu.spans["a INTERNAL fails"].GetAttributes(); len(a) != 1 || a[0].GetKey() != "volume" || a[0].GetValue().GetStringValue() != "graph" {
			t.Errorf("attributes %v", a)
		}
		s.mu.Unlock()
	}
}

func TestTraceURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"": true, "http://127.0.0.1:1": true, "https://otel.example.com": true, "https://otel.example.com/": true,
		"127.0.0.1:4317": false, "grpc://a:1": false, "http://": false, "http://a:1/v1/traces": false, "http://u:p@a:1": false, "http://a:x": false,
	} {
		tr, err := StartTracing(t.Context(), TraceOptions{URL: url}, slog.New(slog.DiscardHandler))
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "node: traces ") {
			t.Errorf("%q: %v", url, err)
		}
		if err == nil {
			closeAll(t, tr)
		}
	}
}

// A collector that isn't there is complained of once, until it is back.
func TestCollectorAway(t *testing.T) {
	var log bytes.Buffer
	e, err := newExporter(t.Context(), "http://127.0.0.1:1", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Shutdown(t.Context())
	spans := tracetest.SpanStubs{{Name: "x"}}.Snapshots()
	export := func(d time.Duration) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		if err := e.ExportSpans(ctx, spans); err != nil {
			t.Errorf("otel would complain as well: %v", err)
		}
	}
	for range 3 {
		export(50 * time.Millisecond)
	}
	s := &sink{}
	s.mu.spans = make(map[string]*otlp.Span)
	there, err := newExporter(t.Context(), "http://"+serve(t, func(g *grpc.Server) { collector.RegisterTraceServiceServer(g, s) }), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer there.Shutdown(t.Context())
	away := e.SpanExporter
	e.SpanExporter = there.SpanExporter
	export(time.Minute)
	export(time.Minute)
	e.SpanExporter = away
	export(50 * time.Millisecond)
	if a, b := strings.Count(log.String(), "traces can't be sent"), strings.Count(log.String(), "traces can be sent again"); a != 2 || b != 1 {
		t.Errorf("%d complaints, %d times all is well:\n%s", a, b, &log)
	}
}

// Nobody waits for a collector that isn't there.
func TestCloseAway(t *testing.T) {
	tr, err := StartTracing(t.Context(), TraceOptions{URL: "http://127.0.0.1:1"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	_, end := tr.Start(t.Context(), "x")
	end(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	tr.Close(ctx)
	if took := time.Since(begun); took > 30*time.Second { // without an end it takes a minute
		t.Errorf("it took %v", took)
	}
}
