package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc/codes"

	"graphvol/agent"
	"graphvol/agent/config"
)

const (
	leastMountPause = 2 * time.Second
	mostMountPause  = time.Minute
	mountPatience   = 30 * time.Second
)

// volume is one of the configuration.
type volume struct {
	label string
	cfg   *config.Volume
	opts  agent.MountOptions
}

// connect reaches the volume's server. A volume that isn't mounted has none.
func (v *volume) connect(ctx context.Context) (*agent.Client, error) {
	p, err := agent.Resolve(v.opts.Mount)
	if err != nil {
		return nil, v.notMounted(err)
	}
	if !p.Mounted() {
		return nil, v.notMounted(nil)
	}
	return agent.Connect(ctx, p, new(bytes.Buffer))
}

func (v *volume) notMounted(err error) error {
	return &agent.Error{Code: codes.FailedPrecondition, Message: "the volume " + v.label + " is not mounted: graphvol cluster status tells why; graphvol mount --config mounts it", Err: err}
}

// mountAll mounts all volumes, at the same time. It returns when each was tried once, or one hangs for too long; those that could not be mounted are tried again.
func (n *Node) mountAll() {
	var first sync.WaitGroup
	for _, v := range n.now.Load().volumes {
		first.Add(1)
		n.beside(func(ctx context.Context) { n.mountUntil(ctx, v, sync.OnceFunc(first.Done)) })
	}
	tried := make(chan struct{})
	go func() { first.Wait(); close(tried) }()
	select {
	case <-tried:
	case <-time.After(mountPatience):
		n.log.Warn("a volume takes long to be mounted, and the cluster doesn't wait for it")
	}
}

// mountUntil mounts a volume, with pauses that grow while that fails, for as long as it is configured.
func (n *Node) mountUntil(ctx context.Context, v *volume, tried func()) {
	defer tried()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = leastMountPause, mostMountPause
	for {
		wanted, err := n.mountOne(ctx, v)
		if !wanted || err == nil || ctx.Err() != nil {
			return
		}
		n.log.Error("the volume can't be mounted, and is tried again", "volume", v.label, "err", err)
		tried()
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// mountOne mounts a volume unless it isn't configured any more. Of one that is configured anew while it can't be mounted, the two take turns: a second holder that is kept out of the
// directories by the first would mount when that has been unmounted.
func (n *Node) mountOne(ctx context.Context, v *volume) (wanted bool, err error) {
	done, err := n.mounting.take(ctx, v.label)
	if err != nil {
		return false, err
	}
	defer done()
	if n.now.Load().find(v.label) != v {
		return false, nil
	}
	err = n.mount(ctx, v)
	n.problem("volume "+v.label, err)
	return true, err
}

func (n *Node) mount(ctx context.Context, v *volume) error {
	if agent.IsMounted(ctx, v.opts) {
		if !agent.Answers(ctx, v.opts) { // an agent that died has just begun to mount it, maybe in vain
			return fmt.Errorf("the volume %s is mounted at %s, and its server doesn't answer yet", v.label, v.opts.Mount)
		}
		n.log.Info("the volume is mounted already", "volume", v.label, "mount", v.opts.Mount)
		return nil
	}
	var notes bytes.Buffer
	m, err := agent.Mount(ctx, n.opts.Self, v.opts, &notes)
	if notes.Len() > 0 {
		n.log.Info("mounting", "volume", v.label, "notes", notes.String())
	}
	if err != nil {
		return err
	}
	n.log.Info("the volume is mounted", "volume", v.label, "mount", m.Mount, "holder", m.Holder, "server", m.Server)
	if problem := m.Problem(ctx); problem != "" {
		return errors.New(problem)
	}
	return nil
}
