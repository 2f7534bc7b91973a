package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"graphvol/agent/api"
)

// overGRPC: tools that know nothing of graphvol can ask an agent, on its socket and, with a certificate, from elsewhere.
func (t *test) overGRPC() {
	n := t.Nodes[0]
	local := t.dial("unix:"+filepath.Join(n.State, "agent.sock"), insecure.NewCredentials())
	t.serving(local)
	t.serving(t.dial(n.listen(t), t.credentials("b")))
	ctx, cancel := t.bounded()
	defer cancel()
	for _, creds := range []credentials.TransportCredentials{insecure.NewCredentials(), t.credentials("")} {
		_, err := grpc_health_v1.NewHealthClient(t.dial(n.listen(t), creds)).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("somebody without a certificate is answered: %v", err)
		}
	}
	c := api.NewClusterClient(local)
	t.snapshot("taken")
	for want, call := range map[codes.Code]func() error{
		codes.NotFound: func() error {
			_, err := c.DeleteClusterSnapshots(ctx, &api.DeleteClusterSnapshotsRequest{Snapshots: []string{"unknown"}})
			return err
		},
		codes.AlreadyExists: func() error {
			s, err := c.TakeSnapshot(ctx, &api.TakeSnapshotRequest{Name: "taken"})
			return last(s, err)
		},
		codes.InvalidArgument: func() error {
			s, err := c.TakeSnapshot(ctx, &api.TakeSnapshotRequest{Name: "a/b"})
			return last(s, err)
		},
		codes.Aborted: func() error {
			was := int64(1)
			_, err := c.SetConfig(ctx, &api.SetConfigRequest{Text: "cluster: {timeout: 9s}\n", Was: &was})
			return err
		},
		codes.FailedPrecondition: func() error {
			s, err := c.Restore(ctx, &api.RestoreClusterRequest{Snapshot: "taken", Destination: []byte(t.Dir + "/restored"), Map: []string{"a=d", "b=b", "c=c"}})
			return last(s, err)
		},
	} {
		if err := call(); status.Code(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

// last reads a stream to its end.
func last[T any](s grpc.ServerStreamingClient[T], err error) error {
	for err == nil {
		_, err = s.Recv()
	}
	return err
}

// listen is the address of a node for others.
func (n *Node) listen(t *test) string { return t.setting(n, "listen") }

// setting is the first value of a name in a node's configuration.
func (t *test) setting(n *Node, name string) string {
	t.Helper()
	_, rest, _ := strings.Cut(t.read(n.Config), name+": ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

func (t *test) dial(address string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// credentials are those of a node of the cluster; without a name those of somebody who only knows its CA.
func (t *test) credentials(name string) credentials.TransportCredentials {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(t.certs(), "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: t.Net.Host(0)}
	if !config.RootCAs.AppendCertsFromPEM(ca) {
		t.Fatalf("ca.crt has no certificate: %s", ca)
	}
	if name != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(t.certs(), name+".crt"), filepath.Join(t.certs(), name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(config)
}

// serving fails the test unless the standard health service and reflection answer.
func (t *test) serving(conn *grpc.ClientConn) {
	t.Helper()
	ctx, cancel := t.bounded()
	defer cancel()
	h, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil || h.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health at %s: %v, %v", conn.Target(), h, err)
	}
	s, err := reflection.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, svc := range answer.GetListServicesResponse().GetService() {
		names = append(names, svc.GetName())
	}
	for _, want := range []string{"graphvol.v1.Cluster", "graphvol.v1.Node", "grpc.health.v1.Health"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s serves %q, not %s", conn.Target(), names, want)
		}
	}
}
