package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const mostRecordPause = 5 * time.Second

// insist does something with etcd again and again while that doesn't answer, until ctx ends: the coordinator may lose its way to etcd and have it back while it is the coordinator, and nobody else
// ends what it leaves open then.
func insist(ctx context.Context, fn func() error) error {
	pause := backoff.NewExponentialBackOff()
	pause.MaxInterval = mostRecordPause
	for {
		err := fn()
		if err == nil || !errors.Is(err, ErrEtcd) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause.NextBackOff()):
		}
	}
}
