package hold

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Direct says what to mount without a holder.
type Direct struct {
	Mount      string // canonical
	Source     string // a directory; it gets the pid file
	AllowOther bool
	Log        *slog.Logger
}

// ErrLeft says that a mount was in use when it had to go: it is out of the tree, and requests may still come.
var ErrLeft = errors.New("the mount was in use, and is detached")

// ServeDirect mounts, read-only, and answers the kernel's requests in this process until the mount is gone: somebody unmounts it, or ctx ends. There is nobody who
// would start a server again: with the process, the mount dies. ready is called when it serves.
func ServeDirect(ctx context.Context, d Direct, raw fuse.RawFileSystem, opts *fuse.MountOptions, ready func()) error {
	o := *opts
	fd, err := mountFuse(mountOptions{Point: d.Mount, Source: d.Source, MaxRead: o.MaxWrite, AllowOther: d.AllowOther, ReadOnly: true, Log: d.Log})
	if err != nil {
		return err
	}
	m, _, err := mountAt(d.Mount)
	if err != nil {
		return errors.Join(err, unix.Close(fd), detach(d.Mount))
	}
	o.DirectMount, o.DirectMountStrict = false, false
	o.Logger = slog.NewLogLogger(d.Log.Handler(), slog.LevelWarn)
	srv, err := fuse.NewServer(raw, filepath.Join("/dev/fd", strconv.Itoa(fd)), &o)
	if err != nil {
		return errors.Join(fmt.Errorf("first request of the kernel: %w", err), detach(d.Mount))
	}
	defer d.note()()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		srv.Serve()
	}()
	ready()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	if err := unmount(m); err != nil {
		d.Log.Warn("the mount is detached", "err", err)
		return errors.Join(ErrLeft, detach(d.Mount))
	}
	<-gone
	return nil
}

// note writes the pid file, so that who unmounts can wait for this process. It works without.
func (d *Direct) note() (remove func()) {
	path := filepath.Join(d.Source, InfoFile)
	self, err := ProcessOf(os.Getpid())
	if err == nil {
		err = Info{Server: self, Mount: d.Mount, Backing: d.Source}.write(path)
	}
	if err != nil {
		d.Log.Warn("the pid file is not up to date", "path", path, "err", err)
	}
	return func() { os.Remove(path) }
}
