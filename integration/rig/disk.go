package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Tmpfs mounts a filesystem in memory until the test ends. size is mount's, such as "48m".
func Tmpfs(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("can't mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Disk is a filesystem in an image file, on a loop device, whose power can be cut. Its methods are for one goroutine.
type Disk struct {
	Dir     string // where it is mounted
	fstype  string
	image   string
	options string
}

// NewDisk makes a filesystem of a type (ext4, xfs, btrfs) and a size in bytes, and mounts it with mount(8)'s options until the test
// ends. It skips the test where that can't be done.
func NewDisk(t testing.TB, fstype string, size int64, options string) *Disk {
	t.Helper()
	NeedRoot(t)
	dir := t.TempDir()
	d := &Disk{Dir: filepath.Join(dir, "disk"), fstype: fstype, image: filepath.Join(dir, "image"), options: "loop"}
	if options != "" {
		d.options += "," + options
	}
	if err := d.format(fstype, size); err != nil {
		t.Skipf("no %s on a loop device here: %v", fstype, err)
	}
	if err := d.Mount(); err != nil {
		t.Skipf("no %s on a loop device here: %v", fstype, err)
	}
	t.Cleanup(func() {
		if err := d.unmountFree(); err != nil && !errors.Is(err, unix.EINVAL) { // nothing is mounted
			t.Errorf("unmount %s: %v", d.Dir, err)
			unix.Unmount(d.Dir, unix.MNT_DETACH)
		}
	})
	return d
}

func (d *Disk) format(fstype string, size int64) error {
	if err := os.Mkdir(d.Dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(d.image)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	args := map[string][]string{"ext4": {"-q", "-F"}, "xfs": {"-q", "-f"}, "btrfs": {"-q", "-f"}}[fstype]
	return command("mkfs."+fstype, append(args, d.image)...)
}

// Image is the file that the filesystem is in. It may be copied, and replaced, while the disk isn't mounted.
func (d *Disk) Image() string { return d.image }

// Mount mounts the disk again.
func (d *Disk) Mount() error { return command("mount", "-o", d.options, d.image, d.Dir) }

// Unmount unmounts the disk. Its error is that of umount(2): EBUSY while files are open.
func (d *Disk) Unmount() error { return unix.Unmount(d.Dir, 0) }

// unmountFree unmounts the disk once nothing is open on it. Processes that have ended, and those that this one has forked and that don't run their
// program yet, hold it for a moment.
func (d *Disk) unmountFree() error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err := d.Unmount(); !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

// Check checks the unmounted filesystem and mends it, as is done after its kernel has found an error.
func (d *Disk) Check() error {
	if d.fstype != "ext4" {
		return nil
	}
	err := command("e2fsck", "-f", "-y", d.image)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // errors were corrected
		return nil
	}
	return err
}

// CutPower stops the filesystem as a power cut does: from now on all calls fail with EIO, and after Unmount and Mount it holds
// what had reached the device, no more. It is FS_IOC_SHUTDOWN, which ext4 and xfs have, without flushing the log.
func (d *Disk) CutPower() error {
	const shutdown, noLogFlush = 0x8004587d, 2
	err := d.with(func(fd int) error { return unix.IoctlSetPointerInt(fd, shutdown, noLogFlush) })
	if err != nil {
		return fmt.Errorf("FS_IOC_SHUTDOWN %s: %w", d.Dir, err)
	}
	return nil
}

// PowerUp mounts a disk again whose power was cut. It waits for what the kernel still does for processes that have ended (EBUSY), and for other mount
// namespaces that have a copy of the mount: until they are gone, mounting gives the dead filesystem again (EIO).
func (d *Disk) PowerUp() error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := d.Unmount()
		if err == nil {
			err = d.Mount()
		}
		if err == nil {
			err = d.with(unix.Fsync)
		}
		if err == nil || !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EIO) || time.Now().After(deadline) {
			return err
		}
	}
}

// Sync has all that was written to the disk reach the device.
func (d *Disk) Sync() error { return d.with(unix.Syncfs) }

// with calls fn with the open root directory.
func (d *Disk) with(fn func(fd int) error) error {
	f, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	return errors.Join(fn(int(f.Fd())), f.Close())
}

// Remount changes the options of the mounted disk, as "ro".
func (d *Disk) Remount(options string) error {
	return command("mount", "-o", "remount,"+options, d.Dir)
}

func command(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}
