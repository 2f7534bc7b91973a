// Package kill ends servers and holders with SIGKILL under clients that notice everything: any error, any content that isn't
// what they wrote, any name that is missing or too many.
package kill

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/fs/hold"
	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

var (
	runs     = flag.Int("kill.runs", 0, "how many times a server is killed at a random moment, in each cache mode; 0: a few")
	duration = flag.Duration("kill.duration", 0, "kill for so long at least")
	seed     = flag.Uint64("kill.seed", 0, "repeat the run of this seed; 0: a new one")
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// newRand gives the run's source of moments, and says how to have it again.
func newRand(t testing.TB) *rand.Rand {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("go test ./integration/kill -run '^%s$' -kill.seed %d", t.Name(), n)
	return rand.New(rand.NewPCG(n, 0))
}

// killer kills a volume's servers.
type killer struct {
	*volume.Volume
	rng   *rand.Rand
	kills []window
}

// window is the time from a kill until the next server has answered.
type window struct{ from, to time.Time }

// pids are the processes of the volume. A holder that has just started a server may not have noted it yet.
func (k *killer) pids() (hold.Info, error) {
	info, err := hold.ReadInfo(filepath.Join(k.StateDir(), hold.InfoFile))
	if err == nil && (info.Server.PID <= 1 || info.Holder.PID <= 1) {
		err = fmt.Errorf("the holder's file names processes %d and %d", info.Holder.PID, info.Server.PID)
	}
	return info, err
}

// kill kills the server, whatever it is doing, and doesn't wait.
func (k *killer) kill() error {
	info, err := k.pids()
	if err != nil {
		return err
	}
	k.kills = append(k.kills, window{from: time.Now()})
	if err := info.Server.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the server, process %d: %w", info.Server.PID, err)
	}
	return nil
}

// answered waits until a server answers: a new one, after kill.
func (k *killer) answered() error {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, k.Mount, unix.AT_STATX_FORCE_SYNC, unix.STATX_TYPE, &st); err != nil {
		return fmt.Errorf("stat %s after a kill: %w", k.Mount, err)
	}
	if n := len(k.kills); n > 0 {
		k.kills[n-1].to = time.Now()
	}
	return nil
}

// between gives a random time.
func (k *killer) between(least, most time.Duration) time.Duration {
	return least + time.Duration(k.rng.Int64N(int64(most-least)))
}

// pause waits for a random time.
func (k *killer) pause(ctx context.Context, least, most time.Duration) {
	select {
	case <-time.After(k.between(least, most)):
	case <-ctx.Done():
	}
}
