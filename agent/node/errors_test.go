package node

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/cluster"
)

// That a node is away doesn't look as if the agent were that says it.
func TestStatusOfNodeThatIsAway(t *testing.T) {
	err := statusOf(&cluster.NodeError{Node: "b", Err: status.Error(codes.Unavailable, "connection refused")})
	if status.Code(err) != codes.Aborted || status.Convert(err).Message() != "node b: connection refused" {
		t.Error(err)
	}
	for _, err := range []error{err, statusOf(cluster.ErrEtcd), statusOf(cluster.ErrNoCoordinator)} {
		if got := unreachable("a", err); got != err {
			t.Errorf("the coordinator isn't the one that is away: %v", got)
		}
	}
}

func TestStatusOfNodeThatIsSilent(t *testing.T) {
	err := statusOf(&cluster.NodeError{Node: "b", Err: context.DeadlineExceeded})
	if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "node b: it has not answered") {
		t.Error(err)
	}
}
