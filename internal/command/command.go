// Package command runs programs that a configuration names, with bounds: a time after which they are killed with everything that they have started, and a length of what they print.
package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/internal/priority"
)

const (
	maxStderr = 4 << 10     // bytes of the end of what a program says on stderr are kept
	grace     = time.Second // pipes that somebody else holds open are waited for
	unkilled  = 3 * grace   // a program that was killed is waited for
)

// Output runs a program, without a shell, and returns what it prints to stdout. The program has a process group of its own, / for its working directory, an empty stdin and this
// process's environment. When it has ended, timeout has passed, ctx is done, or it has printed more than limit bytes, the whole group is killed. So nothing that it has started
// survives it, except what has left the group by itself.
//
// Errors are one line that names the program, with the last line that it has said on stderr. Safe for concurrent use.
func Output(ctx context.Context, argv []string, timeout time.Duration, limit int) ([]byte, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stdout := &head{limit: limit, over: stop}
	stderr := &tail{limit: maxStderr}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = grace
	if err := cmd.Start(); err != nil {
		var p *os.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return nil, fmt.Errorf("%s can't be started: %w", argv[0], err)
	}
	priority.Usual(cmd.Process.Pid)
	err := wait(ctx, cmd, timeout)
	switch out, whole := stdout.bytes(); {
	case !whole:
		return nil, fmt.Errorf("%s prints more than %d bytes, and was killed", argv[0], limit)
	case err != nil:
		return nil, fmt.Errorf("%s %w%s", argv[0], err, stderr.said())
	default:
		return out, nil
	}
}

// wait ends a program that was started. The program is not reaped before its group was killed: until then its number, which is the group's too, can be nobody else's.
func wait(ctx context.Context, cmd *exec.Cmd, timeout time.Duration) error {
	pid := cmd.Process.Pid
	ended, reaped := make(chan struct{}), make(chan error, 1)
	go func() {
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
		close(ended)
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var why error
	select {
	case <-ended:
	case <-timer.C:
		why = fmt.Errorf("did not end within %s, and was killed", timeout)
	case <-ctx.Done():
		why = fmt.Errorf("was killed: %w", ctx.Err())
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // fails if all have ended
	go func() {
		<-ended
		reaped <- cmd.Wait()
	}()
	select {
	case err := <-reaped:
		if why == nil {
			why = failure(err)
		}
		return why
	case <-time.After(unkilled):
		return errors.New("was killed, and doesn't end: it waits for a disk or a mount that doesn't answer")
	}
}

func failure(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrWaitDelay):
		return errors.New("has ended, but something that it has started holds its output open")
	default:
		return fmt.Errorf("failed: %w", err)
	}
}
