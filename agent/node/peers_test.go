package node

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"graphvol/agent/api"
	"graphvol/agent/reach"
)

// manySnapshots answers with more than gRPC takes if nobody says otherwise.
type manySnapshots struct{ api.UnimplementedClusterServer }

func (manySnapshots) ListClusterSnapshots(context.Context, *api.ListClusterSnapshotsRequest) (*api.ListClusterSnapshotsResponse, error) {
	res := &api.ListClusterSnapshotsResponse{}
	for range 100 {
		res.Snapshots = append(res.Snapshots, &api.ClusterSnapshot{Manifest: make([]byte, 100<<10)})
	}
	return res, nil
}

func TestLongAnswer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	api.RegisterClusterServer(srv, manySnapshots{})
	go srv.Serve(ln)
	defer srv.Stop()
	conn, err := reach.Dial(ln.Addr().String(), insecure.NewCredentials())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	res, err := api.NewClusterClient(conn).ListClusterSnapshots(t.Context(), &api.ListClusterSnapshotsRequest{})
	if err != nil || len(res.GetSnapshots()) != 100 {
		t.Errorf("%d snapshots, %v", len(res.GetSnapshots()), err)
	}
}
