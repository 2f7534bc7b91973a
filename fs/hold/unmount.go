package hold

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/internal/fusedev"
)

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

// endsBy is how long the processes behind a mount usually take at most to end.
const endsBy = 3 * time.Second

// Unmount unmounts the volume at point and waits until the processes behind it have ended, so that its state is on disk and a new mount can follow.
// infoPath is the holder's pid file; if it is empty or, the disk being broken, can't be read, it doesn't wait. *BusyError says who uses the mount; ErrNotMounted that there is none;
// *ElsewhereError that it is unmounted, and lives on in other mount namespaces. A dead mount is detached.
func Unmount(ctx context.Context, point, infoPath string) error {
	m, ok, err := MountAt(point)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", point, err)
	}
	if !ok || m.FSType != FSType {
		return fmt.Errorf("%s: %w", point, ErrNotMounted)
	}
	var in Info // before the unmount: its holder removes it
	if infoPath != "" {
		if in, err = ReadInfo(infoPath); err != nil {
			in = Info{}
		}
	}
	if probe(ctx, m.Point, probeTimeout) == dead {
		return detach(m.Point)
	}
	if err := unmount(m); err != nil {
		return err
	}
	for _, p := range []Process{in.Server, in.Holder} {
		if err := waitEnd(ctx, m, p); err != nil {
			return err
		}
	}
	return nil
}

// waitEnd waits for the end of a process behind m, which was unmounted here. It doesn't come while another mount namespace has m.
func waitEnd(ctx context.Context, m Mount, p Process) error {
	for {
		soon, cancel := context.WithTimeout(ctx, endsBy)
		err := p.Wait(soon)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%s is unmounted, but process %d has not ended: %w", m.Point, p.PID, err)
		}
		if found := elsewhere(m); len(found) > 0 {
			return &ElsewhereError{Point: m.Point, Server: p.PID, Found: found}
		}
	}
}

// unmount unmounts in an orderly way: the kernel writes its dirty pages back first, so the server must be running. A mount that is busy
// without a user that could be named is tried again: the holder's question to it counts as use for the moment that it takes.
func unmount(m Mount) error {
	for tries := 5; ; tries-- {
		err := unmountOnce(m)
		var busy *BusyError
		if tries == 0 || !errors.As(err, &busy) || len(busy.Users)+len(busy.Submounts) > 0 {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func unmountOnce(m Mount) error {
	err := unix.Unmount(m.Point, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EPERM) {
		err = unmountHelper(m.Point, "-u")
	}
	if errors.Is(err, unix.EBUSY) {
		return busy(m)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", m.Point, err)
	}
	return nil
}

// detach removes a mount from the tree whatever uses it.
func detach(point string) error {
	err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EPERM) {
		err = unmountHelper(point, "-uz")
	}
	if err != nil {
		return fmt.Errorf("detach the mount at %s: %w", point, err)
	}
	return nil
}

func unmountHelper(point, flag string) error {
	bin, err := fusedev.Helper()
	if err != nil {
		return err
	}
	cmd := exec.Command(bin, flag, "--", point)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "busy") {
		return unix.EBUSY
	}
	if err != nil {
		return fmt.Errorf("%s: %s", bin, strings.TrimSpace(string(out)))
	}
	return nil
}

// busy finds out who is to blame.
func busy(m Mount) error {
	e := &BusyError{Point: m.Point}
	var err error
	if e.Users, err = Users(m); err != nil {
		return fmt.Errorf("%s is busy, and its users can't be found: %w", m.Point, err)
	}
	all, err := Mounts()
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Parent == m.ID {
			e.Submounts = append(e.Submounts, o.Point)
		}
	}
	return e
}
