package hold

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// probeTimeout is how long a mount may take to answer before it counts as stuck. A server that is being restarted answers later than usual.
const probeTimeout = 5 * time.Second

type health int

const (
	live  health = iota
	dead         // no process has the descriptor any more: ENOTCONN for ever
	stuck        // no answer yet
)

// Dead reports whether the mount at point answers ENOTCONN: nothing serves it and nothing ever will. False within the context's time for one that
// doesn't answer at all.
func Dead(ctx context.Context, point string) bool { return probe(ctx, point, probeTimeout) == dead }

// Answers reports whether the mount is served. One that has only just come up doesn't answer yet, and may never do. That it is still there after the answer shows that it wasn't the
// directory below that has answered.
func Answers(ctx context.Context, m Mount) bool {
	if probe(ctx, m.Point, probeTimeout) != live {
		return false
	}
	now, ok, err := MountAt(m.Point)
	return err == nil && ok && now.ID == m.ID
}

// probe asks the server for the root's attributes. A stat that can be answered from the kernel's cache succeeds on dead mounts too, hence
// AT_STATX_FORCE_SYNC.
func probe(ctx context.Context, point string, limit time.Duration) health {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		var st unix.Statx_t
		answer <- unix.Statx(unix.AT_FDCWD, point, unix.AT_STATX_FORCE_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	}()
	select {
	case err := <-answer:
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
			return dead
		}
		return live
	case <-ctx.Done():
		return stuck
	}
}

// CleanStale removes dead volume mounts from point, and returns how many there were. infoPath is the pid file of the state that will be mounted there
// (empty: none). ErrInUse if a live volume is mounted at point, or a live process has the state; nothing is touched then.
func CleanStale(ctx context.Context, point, infoPath string) (int, error) {
	if infoPath != "" {
		if err := checkInfo(infoPath); err != nil {
			return 0, err
		}
	}
	for n := 0; ; n++ {
		m, ok, err := MountAt(point)
		if errors.Is(err, os.ErrNotExist) || (err == nil && (!ok || m.FSType != FSType)) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		switch probe(ctx, m.Point, probeTimeout) {
		case live:
			return n, fmt.Errorf("%s is mounted at %s already: %w", m.Source, m.Point, ErrInUse)
		case stuck:
			return n, fmt.Errorf("%s is mounted at %s and its server doesn't answer; end it, or detach the mount (umount -l): %w", m.Source, m.Point, ErrInUse)
		}
		if err := detach(m.Point); err != nil {
			return n, err
		}
	}
}
