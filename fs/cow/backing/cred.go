package backing

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// credentials is what a server that runs as root needs to act for others on one thread.
type credentials struct {
	caps [2]unix.CapUserData
}

// loadCredentials returns nil if this process can't act for others.
func loadCredentials() (*credentials, error) {
	if unix.Geteuid() != 0 {
		return nil, nil
	}
	c := new(credentials)
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &c.caps[0]); err != nil {
		return nil, fmt.Errorf("capabilities: %w", err)
	}
	const needed = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_CHOWN
	if c.caps[0].Effective&needed != needed {
		return nil, nil
	}
	return c, nil
}

// as runs fn with the caller's filesystem ids, so that what it creates belongs to the caller, and with root's
// capabilities: whether the caller may was decided by the kernel, which knows all of its groups.
func (t *Tree) as(c Caller, fn func() error) error { return t.with(c, true, fn) }

// asUnprivileged runs fn with the caller's ids and, unless that is root, without capabilities over files.
func (t *Tree) asUnprivileged(c Caller, fn func() error) error { return t.with(c, false, fn) }

func (t *Tree) with(c Caller, capable bool, fn func() error) error {
	if t.creds == nil || c.Uid == 0 && c.Gid == 0 {
		return fn()
	}
	runtime.LockOSThread()
	if err := t.creds.assume(c, capable); err != nil {
		t.creds.restore()
		return err
	}
	err := fn()
	if e := t.creds.restore(); e != nil {
		// The thread stays locked and ends with its goroutine: it must serve no other request.
		return e
	}
	runtime.UnlockOSThread()
	return err
}

func (cr *credentials) assume(c Caller, capable bool) error {
	if err := unix.Setfsgid(int(c.Gid)); err != nil {
		return err
	}
	if err := unix.Setfsuid(int(c.Uid)); err != nil {
		return err
	}
	if c.Uid == 0 || !capable {
		return nil // leaving uid 0 dropped the capabilities over files
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return unix.Capset(&hdr, &cr.caps[0])
}

func (cr *credentials) restore() error {
	if err := unix.Setfsuid(0); err != nil {
		return err
	}
	if err := unix.Setfsgid(0); err != nil {
		return err
	}
	if uid, _ := unix.SetfsuidRetUid(-1); uid != 0 {
		return unix.EPERM
	}
	return nil
}
