package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// enterNamespace starts this program anew in a mount namespace, as argv. It returns only to say that it failed. A thread may change its
// namespace if it shares no working directory with others, and the program that it executes is all in that one.
func enterNamespace(path, self string, argv []string) error {
	runtime.LockOSThread() // for good: the thread is of no use for anything else
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the mount namespace %s: %w", path, err)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter the mount namespace %s: %w", path, err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the mount namespace %s: %w", path, err)
	}
	if err := unix.Exec(self, argv, os.Environ()); err != nil {
		return fmt.Errorf("start %s in the mount namespace %s: %w", self, path, err)
	}
	return nil
}
