package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/preflight/check"
	"graphvol/agent/preflight/pgroles"
)

// preflight looks at what a snapshot needs before it begins (S8). What would let it fail in the middle refuses it now, with the command that mends it. What doesn't touch the snapshot itself is
// only told: a copy waits until its target is there, and a disk that runs full has a snapshot fail and nothing else, unless the configuration says how much must be free.
func (n *Node) preflight(ctx context.Context) error {
	c := n.now.Load()
	rows := n.checker.Run(ctx, c.file)
	for _, pg := range c.file.Preflight.Postgres {
		rows = append(rows, pgroles.Check(ctx, pg)...)
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	tolerated := []string{"target", "memory", "fuse"} // it is mounted already
	if c.file.Preflight.FreeSpace == "" {
		tolerated = append(tolerated, "space")
	}
	var told, refused []string
	for _, r := range check.Failed(rows) {
		if slices.Contains(tolerated, r.Name) {
			told = append(told, r.String())
		} else {
			refused = append(refused, r.String())
		}
	}
	n.problem("preflight", nil)
	if all := append(refused, told...); len(all) > 0 {
		n.log.WarnContext(ctx, "preflight has found something", "refused", refused, "told", told)
		n.problem("preflight", fmt.Errorf("%s", strings.Join(all, "; ")))
	}
	if len(refused) == 0 {
		return nil
	}
	more := ""
	if len(refused) > 1 {
		more = fmt.Sprintf(" (and %d more: graphvol preflight)", len(refused)-1)
	}
	return status.Error(codes.FailedPrecondition, refused[0]+more)
}
