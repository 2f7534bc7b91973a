package node

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/hook"
)

// hooksName is the directory, in the agent's state, in which it is remembered which hooks have begun.
const hooksName = "hooks"

// hooks are those of a snapshot that have begun, by volume.
type hooks struct {
	ctx   context.Context // of their lines in the log; it doesn't end
	begun []begun
	post  sync.WaitGroup
}

type begun struct {
	*hook.Begun
	volume string
	done   func() // ends the volume's turn
}

// preHooks runs the pre hooks of volumes, those of different ones at the same time. Those of another snapshot of a volume are over by then, with their post hooks: these would let the database go
// on while this one needs it at rest. Whatever preHooks returns, startPost must be called.
func (n *Node) preHooks(ctx context.Context, volumes []*volume, snapshot string) (*hooks, error) {
	h := &hooks{ctx: context.WithoutCancel(ctx)}
	turns, err := n.takeHooks(ctx, volumes)
	if err != nil {
		return h, err
	}
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for i, v := range volumes {
		all.Go(func() {
			b, err := hook.Pre(ctx, hook.Around{
				Hooks: v.cfg.Hooks, Volume: v.label, Mount: v.opts.Mount, Snapshot: snapshot, Dir: filepath.Join(n.state, hooksName), Log: n.log,
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				turns[i]()
				n.metrics.HookFailed(v.label, "pre")
				failed = err
				return
			}
			h.begun = append(h.begun, begun{b, v.label, turns[i]})
		})
	}
	all.Wait()
	if failed != nil {
		return h, status.Error(codes.FailedPrecondition, failed.Error())
	}
	return h, nil
}

// takeHooks waits until no hooks of any of the volumes are being run for another snapshot. It gives what ends each one's turn.
func (n *Node) takeHooks(ctx context.Context, volumes []*volume) ([]func(), error) {
	all := make([]func(), len(volumes))
	for _, i := range inOrder(volumes) {
		done, err := n.hooking.take(ctx, volumes[i].label)
		if err != nil {
			for _, taken := range all {
				if taken != nil {
					taken()
				}
			}
			return nil, status.Errorf(status.FromContextError(ctx.Err()).Code(), "the hooks of %s were still being run for another snapshot: %v; try again, or give them shorter time-outs", volumes[i].label, err)
		}
		all[i] = done
	}
	return all, nil
}

// inOrder gives the places of volumes in an order that is the same for all, so that no two wait for each other.
func inOrder(volumes []*volume) []int {
	places := make([]int, len(volumes))
	for i := range places {
		places[i] = i
	}
	slices.SortFunc(places, func(a, b int) int { return strings.Compare(volumes[a].label, volumes[b].label) })
	return places
}

// startPost begins to run the post hooks, once. The snapshot isn't worse for one that fails: the log has it.
func (h *hooks) startPost(n *Node, r hook.Result) {
	all := h.begun
	h.begun = nil
	for _, b := range all {
		h.post.Go(func() {
			defer b.done()
			if err := b.Post(h.ctx, r); err != nil {
				n.log.ErrorContext(h.ctx, "a post hook has failed: the database may still be quiesced", "volume", b.volume, "err", err)
				n.metrics.HookFailed(b.volume, "post")
				n.problem("hooks", err)
				return
			}
			n.problem("hooks", nil)
		})
	}
}

// wait waits until the post hooks have run.
func (h *hooks) wait() { h.post.Wait() }

// recoverHooks runs the post hooks of a process that died in between.
func (n *Node) recoverHooks(ctx context.Context) {
	if err := hook.Recover(ctx, filepath.Join(n.state, hooksName), n.log); err != nil {
		n.log.Error("hooks that an earlier agent has left could not be run: the database may still be quiesced", "err", err)
		n.problem("hooks", err)
	}
}
