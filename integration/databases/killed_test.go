package databases

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// killedDir is a mount whose server is killed again and again, but for the time of a snapshot or a restart. The database must not notice.
type killedDir struct {
	mountDir
	mu *sync.Mutex // held while the server is dead, and while it must not be
}

func (k killedDir) snapshot(t *testing.T, name string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mountDir.snapshot(t, name)
}

func (k killedDir) restart(t *testing.T) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mountDir.restart(t)
}

// killAgain kills the mount's server until the test ends.
func killAgain(t *testing.T, m mountDir) killedDir {
	t.Helper()
	k := killedDir{m, new(sync.Mutex)}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		kills := 0
		defer func() { done <- kills }()
		for {
			select {
			case <-time.After(time.Duration(20+rand.IntN(400)) * time.Millisecond):
			case <-ctx.Done():
				return
			}
			if err := k.kill(ctx); err != nil {
				if ctx.Err() == nil {
					t.Error(err)
				}
				return
			}
			kills++
		}
	}()
	t.Cleanup(func() {
		stop()
		t.Logf("%d kills", <-done)
	})
	return k
}

// kill returns when another server serves.
func (k killedDir) kill(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, err := k.Status(ctx)
	if err != nil {
		return err
	}
	if err := k.KillServer(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, err := k.Status(ctx); err == nil && now.ServerPID > 1 && now.ServerPID != before.ServerPID {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
