package node

import (
	"context"
	"path/filepath"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent/hook"
)

// hooksName is the directory, in the agent's state, in which it is remembered which hooks have begun.
const hooksName = "hooks"

// hooks are those of a snapshot that have begun, by volume.
type hooks struct {
	begun []begun
	post  sync.WaitGroup
}

type begun struct {
	*hook.Begun
	volume string
}

// preHooks runs the pre hooks of volumes, those of different ones at the same time. Whatever it returns, postHooks must be called.
func (n *Node) preHooks(ctx context.Context, volumes []*volume, snapshot string) (*hooks, error) {
	h := &hooks{}
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	for _, v := range volumes {
		all.Go(func() {
			b, err := hook.Pre(ctx, hook.Around{
				Hooks: v.cfg.Hooks, Volume: v.label, Mount: v.opts.Mount, Snapshot: snapshot, Dir: filepath.Join(n.state, hooksName), Log: n.log,
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				n.metrics.HookFailed(v.label, "pre")
				failed = err
				return
			}
			h.begun = append(h.begun, begun{b, v.label})
		})
	}
	all.Wait()
	if failed != nil {
		return h, status.Error(codes.FailedPrecondition, failed.Error())
	}
	return h, nil
}

// startPost begins to run the post hooks, once. The snapshot isn't worse for one that fails: the log has it.
func (h *hooks) startPost(n *Node, r hook.Result) {
	all := h.begun
	h.begun = nil
	for _, b := range all {
		h.post.Go(func() {
			if err := b.Post(context.Background(), r); err != nil {
				n.log.Error("a post hook has failed: the database may still be quiesced", "volume", b.volume, "err", err)
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
