package hook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Recover runs the post hooks of all that had begun when the agent died, and returns when that is done. It is called once, before the first Pre. Its error is for people: what could be run has been.
func Recover(ctx context.Context, dir string, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hooks that had begun when the agent died can't be found: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case !strings.HasPrefix(name, memoryPrefix):
		case strings.HasSuffix(name, memorySuffix):
			err = join(err, recoverOne(ctx, &memory{filepath.Join(dir, name)}, log))
		case strings.HasSuffix(name, ".tmp"): // what it was about hadn't begun
			err = join(err, os.Remove(filepath.Join(dir, name)))
		}
	}
	return err
}

func recoverOne(ctx context.Context, m *memory, log *slog.Logger) error {
	a, err := m.recall()
	if err != nil {
		return fmt.Errorf("which post hooks had to be run when the agent died can't be read: run those of your volumes yourself, then remove %s (%w)", m.path, err)
	}
	a.Log = log
	log.WarnContext(ctx, "the agent died between the hooks of a snapshot: its post hooks are run now", "volume", a.Volume, "snapshot", a.Snapshot)
	if err := m.endFormer(); err != nil {
		log.ErrorContext(ctx, "a hook of the agent that died still runs", "volume", a.Volume, "err", err)
	}
	b := &Begun{around: a, memory: m}
	return b.Post(ctx, Unknown)
}

// endFormer ends the pre hook that the agent left behind. A post hook may go on: it does no harm, and may be starting the database.
func (m *memory) endFormer() error {
	raw, err := os.ReadFile(m.runningPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer m.ended()
	var f former
	var pid int
	var start string
	if n, err := fmt.Sscan(string(raw), &f.word, &f.session, &pid, &start); n < 2 {
		return fmt.Errorf("%s names no process: %w", m.runningPath(), err)
	}
	// Another process may have its number by now.
	if p, err := inspect(pid); err == nil && pid != 0 && p.start == start {
		f.group = pid
	}
	return f.end()
}
