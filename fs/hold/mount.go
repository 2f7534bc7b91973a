package hold

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"graphvol/internal/fusedev"
)

// mountOptions are what the kernel is told at mount(2); everything else is negotiated by INIT.
type mountOptions struct {
	Point      string
	Source     string
	MaxRead    int
	AllowOther bool
	Suid, Dev  bool
	NoExec     bool
	ReadOnly   bool
	Helper     bool // don't try mount(2)
	Log        *slog.Logger
}

// mountFuse mounts and returns the connection's descriptor (close-on-exec).
func mountFuse(o mountOptions) (int, error) {
	if o.Helper {
		return mountHelper(o)
	}
	fd, err := mountDirect(o)
	if err == nil {
		return fd, nil
	}
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return -1, err
	}
	return mountHelper(o)
}

// mountDirect mounts with mount(2), which needs CAP_SYS_ADMIN.
func mountDirect(o mountOptions) (int, error) {
	fd, err := unix.Open(fusedev.Path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return -1, fmt.Errorf("%s is missing: load the kernel module (modprobe fuse), or give the container the device (--device %s): %w", fusedev.Path, fusedev.Path, err)
	case err != nil:
		return -1, fmt.Errorf("open %s: %w", fusedev.Path, err)
	}
	var flags uintptr
	if !o.Suid {
		flags |= unix.MS_NOSUID
	}
	if !o.Dev {
		flags |= unix.MS_NODEV
	}
	if o.NoExec {
		flags |= unix.MS_NOEXEC
	}
	if o.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions,max_read=%d", fd, os.Geteuid(), os.Getegid(), o.MaxRead)
	if o.AllowOther {
		data += ",allow_other"
	}
	if err := unix.Mount(o.Source, o.Point, FSType, flags, data); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mount at %s: %w", o.Point, err)
	}
	return fd, nil
}

// mountHelper mounts through the setuid program fusermount3, which opens /dev/fuse and sends the descriptor back.
func mountHelper(o mountOptions) (int, error) {
	fd, out, err := runHelper(o)
	if err != nil && o.AllowOther && strings.Contains(out, "allow_other") {
		o.Log.Info("other users will not see the mount: user_allow_other is not set in /etc/fuse.conf", "mount", o.Point)
		o.AllowOther = false
		fd, out, err = runHelper(o)
	}
	if err != nil && out != "" {
		return -1, fmt.Errorf("mount at %s: %s", o.Point, out)
	}
	if err != nil {
		return -1, fmt.Errorf("mount at %s: %w", o.Point, err)
	}
	return fd, nil
}

// runHelper runs fusermount3 once; out is what it printed.
func runHelper(o mountOptions) (fd int, out string, err error) {
	bin, err := fusedev.Helper()
	if err != nil {
		return -1, "", err
	}
	opts := []string{"fsname=" + escapeOption(o.Source), "subtype=" + strings.TrimPrefix(FSType, "fuse."), "default_permissions",
		fmt.Sprintf("max_read=%d", o.MaxRead)}
	for _, on := range []struct {
		set  bool
		name string
	}{{o.AllowOther, "allow_other"}, {o.Suid, "suid"}, {o.Dev, "dev"}, {o.NoExec, "noexec"}, {o.ReadOnly, "ro"}} {
		if on.set {
			opts = append(opts, on.name)
		}
	}
	local, remote, err := socketpair()
	if err != nil {
		return -1, "", err
	}
	defer local.Close()
	cmd := exec.Command(bin, "-o", strings.Join(opts, ","), "--", o.Point)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3", "LC_ALL=C")
	cmd.ExtraFiles = []*os.File{remote}
	said, err := cmd.CombinedOutput()
	remote.Close()
	out = strings.TrimSpace(string(said))
	if err != nil {
		return -1, out, fmt.Errorf("%s: %w", bin, err)
	}
	f, err := receiveFile(local)
	if err != nil {
		return -1, out, fmt.Errorf("%s sent no descriptor: %w", bin, err)
	}
	defer f.Close()
	fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	return fd, out, err
}

// escapeOption keeps commas and backslashes of a path from ending a mount option.
func escapeOption(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}

// receiveFile takes the one descriptor that the peer sends.
func receiveFile(c *net.UnixConn) (*os.File, error) {
	buf, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	return fileFrom(oob[:n])
}
