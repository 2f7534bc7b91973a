package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"graphvol/agent/pki"
)

// ErrStartAnew is Run's error when the program has to be started again, with the same arguments: etcd, which is in it, reads the CA's file when it starts and never again. Members with other CAs than
// the rest would be cut off as soon as a connection has to be made anew.
var ErrStartAnew = errors.New("the CA's file has changed, and etcd reads it only when the agent starts")

// lookAtRoots is how often it is looked whether the CA's file has changed.
const lookAtRoots = 2 * time.Second

// rootsOf is what etcd is about to read.
func rootsOf(certs *pki.Files) (sum [sha256.Size]byte) {
	if certs != nil {
		sum = certs.Roots()
	}
	return sum
}

// followRoots ends the agent's run when the CAs are others than those that etcd was started with.
func (n *Node) followRoots(ctx context.Context, certs *pki.Files, was [sha256.Size]byte) {
	tick := time.NewTicker(lookAtRoots)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if certs.Roots() == was {
			n.problem("certificates", nil)
			continue
		}
		if err := n.opts.canStartAnew(); err != nil {
			n.problem("certificates", fmt.Errorf("%w; it doesn't start now, as its configuration can't be used: %w", ErrStartAnew, err))
			continue
		}
		n.log.Info("the agent starts anew", "why", ErrStartAnew)
		close(n.anew)
		return
	}
}

func (o *Options) canStartAnew() error {
	if o.CanStartAnew == nil {
		return errors.New("whoever has started it can't do that")
	}
	return o.CanStartAnew()
}
