// Package priority has a process run before others. Linux has a priority for each thread; threads and processes that are made later have that of their maker.
package priority

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// High is the nice value of processes that databases wait for.
const High = -10

// Raise gives High to all threads of this process, and to what it starts from now on. Without the right to do so the error is EACCES or EPERM, and nothing is changed.
func Raise() error {
	// A thread that is made meanwhile by one that wasn't changed yet is found the second time.
	for range 2 {
		list, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, e := range list {
			tid, err := strconv.Atoi(e.Name())
			if err == nil {
				err = unix.Setpriority(unix.PRIO_PROCESS, tid, High)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
				return fmt.Errorf("set the priority: %w", err)
			}
		}
	}
	return nil
}

// Usual gives the usual priority to a process group that was started by a process with another one: what a configuration names isn't waited for by anybody.
func Usual(group int) { _ = unix.Setpriority(unix.PRIO_PGRP, group, 0) } // to lower it needs no right
