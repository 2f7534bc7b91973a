// Package leash starts processes that end with this one, whatever ends it.
package leash

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts cmd, which the kernel sends the signal when this process ends. ended is closed when cmd has ended and is reaped; how it has ended, nobody learns.
func Start(cmd *exec.Cmd, signal syscall.Signal) (ended <-chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = signal
	started, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the signal comes when the thread ends that has started the process
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return done, <-started
}
