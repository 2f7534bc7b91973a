package traceid

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// example is that of the W3C's recommendation.
const example = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestContexts(t *testing.T) {
	if of, parent := Of(t.Context()), Parent(t.Context()); of+parent != "" {
		t.Errorf("out of nothing comes trace %q, %q", of, parent)
	}
	ctx := With(t.Context(), example)
	if of, parent := Of(ctx), Parent(ctx); of != example[3:35] || parent != example {
		t.Errorf("%s became trace %q, %q", example, of, parent)
	}
	for _, text := range []string{"", "x", example[:54], "ff" + example[2:]} {
		if got := Parent(With(ctx, text)); got != example {
			t.Errorf("after %q it is %q", text, got)
		}
	}
	asked, cancel := context.WithCancel(New(t.Context()))
	cancel()
	if got := Follow(ctx, asked); got.Err() != nil || Parent(got) != Parent(asked) || Of(got) == Of(ctx) {
		t.Errorf("%v, %q, want %q", got.Err(), Parent(got), Parent(asked))
	}
	if got := Parent(Follow(ctx, t.Context())); got != example {
		t.Errorf("who asked belongs to no trace, and now the own one is %q", got)
	}
}

// server tells what its calls belong to.
type server struct {
	grpc_health_v1.UnimplementedHealthServer
	got chan string
}

func (s *server) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	s.got <- Parent(ctx)
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

func (s *server) Watch(_ *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	s.got <- Parent(stream.Context())
	return nil
}

func TestCalls(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{got: make(chan string, 1)}
	g := grpc.NewServer(ServerOption())
	grpc_health_v1.RegisterHealthServer(g, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(ln) }()
	defer func() { g.Stop(); <-done }()
	cc, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), DialOption())
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	c := grpc_health_v1.NewHealthClient(cc)
	for _, ctx := range []context.Context{New(t.Context()), t.Context()} {
		want := Parent(ctx)
		if _, err := c.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
		if got := <-s.got; got != want {
			t.Errorf("a call of %q belongs to %q", want, got)
		}
		stream, err := c.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if got := <-s.got; got != want {
			t.Errorf("a stream of %q belongs to %q", want, got)
		}
		stream.Recv()
	}
}

func TestLogHandler(t *testing.T) {
	ctx := With(t.Context(), example)
	var b bytes.Buffer
	log := slog.New(LogHandler(slog.NewJSONHandler(&b, nil)))
	log.With("a", 1).WithGroup("g").With("b", 2).WithGroup("").InfoContext(ctx, "m", "c", 3)
	log.With("a", 1).InfoContext(t.Context(), "no trace")
	log.DebugContext(ctx, "below the level")
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%q", lines)
	}
	var first struct {
		A     int
		Trace string `json:"trace_id"`
		Span  string `json:"span_id"`
		G     map[string]int
	}
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	if first.A != 1 || first.Trace != example[3:35] || first.Span != example[36:52] || !slices.Equal([]int{first.G["b"], first.G["c"], len(first.G)}, []int{2, 3, 2}) {
		t.Errorf("%s", lines[0])
	}
	if strings.Contains(lines[1], "trace_id") || !strings.Contains(lines[1], `"a":1`) {
		t.Errorf("%s", lines[1])
	}
}
