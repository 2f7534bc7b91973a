package hook

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"graphvol/agent/config"
)

// DefaultTimeout is how long a hook may take if the configuration doesn't say.
const DefaultTimeout = 30 * time.Second

// Result is what post hooks are told of the pause.
type Result string

const (
	Taken   Result = "taken"   // the snapshot is the volume's content at a moment of the pause; it isn't stored yet
	Failed  Result = "failed"  // there is none
	Unknown Result = "unknown" // the agent died meanwhile
)

type phase string

const (
	pre  phase = "pre"
	post phase = "post"
)

// Around is one snapshot of one volume, and the hooks around it.
type Around struct {
	Hooks    config.Hooks
	Volume   string // its name
	Mount    string
	Snapshot string
	Dir      string // where it is remembered what has begun, the same for all volumes of an agent; it is made if it is missing
	Log      *slog.Logger
}

// Begun are hooks of which the post ones are still to be run.
type Begun struct {
	around Around
	memory *memory // nil: there is nothing to remember
	once   sync.Once
	err    error
}

// Pre runs the pre hooks. With an error all is over, and the post hooks have been run; without one, Post must be called. The end of ctx ends a hook as its time-out would.
func Pre(ctx context.Context, a Around) (*Begun, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	b := &Begun{around: a}
	if len(a.Hooks.Post) > 0 {
		m, err := remember(a)
		if err != nil {
			return nil, fmt.Errorf("no hook of %s was run, since the agent couldn't remember to end what they begin: %w", a.Volume, err)
		}
		b.memory = m
	}
	for _, h := range a.Hooks.Pre {
		if err := b.run(ctx, h, pre, ""); err != nil {
			return nil, join(err, b.Post(ctx, Failed))
		}
	}
	return b, nil
}

// Post runs all post hooks, also if ctx has ended: each has its own time-out. Its error tells of those that failed, and the snapshot isn't worse for it. Only the first call does something.
func (b *Begun) Post(ctx context.Context, r Result) error {
	b.once.Do(func() {
		ctx = context.WithoutCancel(ctx)
		for _, h := range b.around.Hooks.Post {
			b.err = join(b.err, b.run(ctx, h, post, r))
		}
		b.err = join(b.err, b.memory.forget())
	})
	return b.err
}

// join keeps errors in one line.
func join(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return fmt.Errorf("%w; %w", a, b)
}

// run runs one hook to its end.
func (b *Begun) run(ctx context.Context, h config.Hook, ph phase, r Result) error {
	timeout := cmp.Or(h.Timeout, DefaultTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	log := b.around.Log.With("hook", strings.Join(h.Command, " "), "phase", string(ph), "volume", b.around.Volume, "snapshot", b.around.Snapshot)
	begun := time.Now()
	out, err := b.command(ctx, h.Command, b.environment(ph, r), ph)
	log = log.With("duration", time.Since(begun))
	if err == nil {
		log.InfoContext(ctx, "a hook has run", "output", out.lines(logLines))
		return nil
	}
	what := fmt.Sprintf("the %s hook %s of %s", ph, h.Command[0], b.around.Volume)
	if errors.Is(err, errTimeout) {
		err = fmt.Errorf("%s %w of %v: give it a longer one, or find out what it waits for", what, err, timeout)
	} else {
		err = fmt.Errorf("%s %w", what, err)
	}
	if last := out.lines(errorLines); len(last) > 0 {
		err = fmt.Errorf("%w: %s", err, strings.Join(last, "; "))
	}
	log.ErrorContext(ctx, "a hook has failed", "err", err, "output", out.lines(logLines))
	return err
}

func (b *Begun) environment(ph phase, r Result) []string {
	// An agent may itself be started by a hook.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GRAPHVOL_RESULT=") })
	env = append(env,
		"GRAPHVOL_VOLUME="+b.around.Volume,
		"GRAPHVOL_MOUNT="+b.around.Mount,
		"GRAPHVOL_SNAPSHOT="+b.around.Snapshot,
		"GRAPHVOL_PHASE="+string(ph),
	)
	if ph == post {
		env = append(env, "GRAPHVOL_RESULT="+string(r))
	}
	return env
}

func (b *Begun) command(ctx context.Context, argv, env []string, ph phase) (*tail, error) {
	m, word := b.memory, rand.Text()
	if ph == post {
		m = nil
	}
	err := m.begins(word)
	defer m.ended()
	p, failed := start(argv, append(env, wordName+"="+word))
	if failed != nil {
		return new(tail), failed
	}
	if err = cmp.Or(err, m.runs(p.cmd.Process.Pid)); err != nil {
		b.around.Log.WarnContext(ctx, "should the agent die, a hook that runs now would not be ended", "err", err)
	}
	return p.out, p.finish(ctx)
}
