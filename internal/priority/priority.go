// Package priority has a process run before others. Linux has a priority for each thread; threads and processes that are made later have that of their maker.
package priority

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// High is the nice value of processes that databases wait for. It counts among the processes of a session where the kernel shares processors among sessions first
// (sched_autogroup_enabled, see sched(7)), and among those of a control group where it does so among these.
const High = -10

// Raise gives High to all threads of this process, and to what it starts from now on. Without the right to do so the error is EACCES or EPERM, and nothing is changed.
func Raise() error {
	return allThreads(func(tid int) (changed bool, err error) {
		if nice, err := niceOf(tid); err != nil || nice == High {
			return false, err
		}
		return true, unix.Setpriority(unix.PRIO_PROCESS, tid, High)
	})
}

// niceOf is a thread's nice value, also while it has a policy without one.
func niceOf(tid int) (int, error) {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, tid)
	return 20 - n, err // the system call doesn't give negative ones
}

// Usual gives the usual priority to a process group that was started by a process with another one: what a configuration names isn't waited for by anybody.
func Usual(group int) { _ = unix.Setpriority(unix.PRIO_PGRP, group, 0) } // to lower it needs no right

// allThreads calls change for the threads of this process, until it has nothing left to do: those that weren't changed yet make others meanwhile.
func allThreads(change func(tid int) (changed bool, err error)) error {
	for again := true; again; {
		again = false
		list, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, e := range list {
			tid, err := strconv.Atoi(e.Name())
			if err != nil {
				return err
			}
			changed, err := change(tid)
			if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
				return fmt.Errorf("set the priority: %w", err)
			}
			again = again || changed
		}
	}
	return nil
}
