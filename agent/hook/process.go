package hook

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/internal/priority"
)

const (
	// grace is how long a hook may take to end after SIGTERM, and how long the kernel may take to end it after SIGKILL.
	grace = 2 * time.Second
	// outputDelay is how long output is waited for that children of a hook may hold open when it has ended.
	outputDelay = 100 * time.Millisecond
)

// errTimeout is put before the time-out's length.
var errTimeout = errors.New("was ended after its time-out")

// process is a running hook, the leader of its process group.
type process struct {
	cmd   *exec.Cmd
	out   *tail
	ended chan struct{} // closed when it has ended, and before it is reaped
}

func start(argv, env []string) (*process, error) {
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), out: new(tail), ended: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = env, "/"
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = outputDelay
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errno
		}
		return nil, fmt.Errorf("can't be started: %w", err)
	}
	priority.Usual(p.cmd.Process.Pid)
	go func() {
		defer close(p.ended)
		for {
			if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	return p, nil
}

// finish waits for the end of the hook, and brings it about when ctx ends.
func (p *process) finish(ctx context.Context) error {
	select {
	case <-p.ended:
		return p.reap()
	case <-ctx.Done():
	}
	p.signal(unix.SIGTERM)
	p.wait(grace)
	// Also if it has ended itself: its children may have not. Nobody else can have the group's number, since its leader isn't reaped.
	p.signal(unix.SIGKILL)
	if !p.wait(grace) {
		go p.reap()
		return fmt.Errorf("%w, and goes on, because the kernel doesn't end it (process %d)", cause(ctx), p.cmd.Process.Pid)
	}
	p.reap()
	return cause(ctx)
}

// cause says why a hook was ended, in words that follow its name.
func cause(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, errTimeout) {
		return fmt.Errorf("was ended: %w", err)
	}
	return errTimeout
}

func (p *process) signal(s unix.Signal) { unix.Kill(-p.cmd.Process.Pid, s) }

func (p *process) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.ended:
		return true
	case <-t.C:
		return false
	}
}

// reap says how the hook has ended.
func (p *process) reap() error {
	err := p.cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // a child of it has its output
		return nil
	case errors.As(err, &exit) && exit.Exited():
		return fmt.Errorf("has failed with exit code %d", exit.ExitCode())
	}
	return fmt.Errorf("has failed: %w", err)
}
