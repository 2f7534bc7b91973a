package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"graphvol/internal/durable"
)

const (
	// uploadBuffer bytes go to the disk at once, past the page cache: a large seal must neither push the database's pages out
	// of memory nor pay for copying into fresh ones, which took a third of a full seal's processor time.
	uploadBuffer = 1 << 20
	directAlign  = 4096
)

var _ Upload = (*dirUpload)(nil)

// dirUpload writes full buffers in the background, one at a time, while the caller fills the next. What doesn't fill a
// buffer goes through the page cache.
type dirUpload struct {
	dir     *Dir
	f       *os.File
	cur     *[]byte    // being filled; nil before the first byte
	off     int64      // where cur goes
	direct  bool       // O_DIRECT is set
	busy    bool       // a result is due on written
	written chan error // results of background writes
	err     error      // of a background write

	ifAbsent bool // Commit must not replace an object
}

// newBuffer returns an empty buffer of uploadBuffer bytes, aligned for O_DIRECT.
func newBuffer() *[]byte {
	p := make([]byte, uploadBuffer+directAlign)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(p))) % directAlign
	p = p[skip : skip : skip+uploadBuffer]
	return &p
}

func (u *dirUpload) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if u.err != nil {
			return n, u.err
		}
		if u.f == nil {
			return n, fs.ErrClosed
		}
		if u.cur == nil {
			u.cur = u.dir.bufs.Get().(*[]byte)
		}
		fill := min(len(p)-n, uploadBuffer-len(*u.cur))
		*u.cur = append(*u.cur, p[n:n+fill]...)
		n += fill
		if len(*u.cur) == uploadBuffer {
			u.flushFull()
		}
	}
	return n, nil
}

// flushFull starts the write of the full buffer once the former one is through.
func (u *dirUpload) flushFull() {
	if u.off == 0 {
		u.setDirect(true) // where the filesystem has no O_DIRECT, it goes without
	}
	if u.wait(); u.err != nil {
		return
	}
	buf, off := u.cur, u.off
	u.cur, u.off, u.busy = nil, off+uploadBuffer, true
	go func() {
		_, err := u.f.WriteAt(*buf, off)
		*buf = (*buf)[:0]
		u.dir.bufs.Put(buf)
		u.written <- err
	}()
}

// wait returns when no write is running in the background.
func (u *dirUpload) wait() {
	if u.busy {
		u.err = errors.Join(u.err, <-u.written)
		u.busy = false
	}
}

func (u *dirUpload) setDirect(on bool) {
	flags, err := unix.FcntlInt(u.f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return
	}
	want := flags &^ unix.O_DIRECT
	if on {
		want |= unix.O_DIRECT
	}
	if _, err := unix.FcntlInt(u.f.Fd(), unix.F_SETFL, want); err == nil {
		u.direct = on
	}
}

// drain writes what doesn't fill a buffer.
func (u *dirUpload) drain() error {
	if u.wait(); u.err != nil {
		return u.err
	}
	if u.cur == nil {
		return nil
	}
	defer u.release()
	if u.direct {
		u.setDirect(false)
	}
	_, err := u.f.WriteAt(*u.cur, u.off)
	return err
}

func (u *dirUpload) release() {
	if u.cur != nil {
		*u.cur = (*u.cur)[:0]
		u.dir.bufs.Put(u.cur)
		u.cur = nil
	}
}

func (u *dirUpload) Commit(ctx context.Context, name string) error {
	err := u.commit(ctx, name)
	if err != nil {
		return errors.Join(fmt.Errorf("store object %s in %s: %w", name, u.dir.root, err), u.Abort())
	}
	return nil
}

func (u *dirUpload) commit(ctx context.Context, name string) error {
	if u.f == nil {
		return fs.ErrClosed
	}
	if err := CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := u.drain(); err != nil {
		return err
	}
	if err := u.f.Sync(); err != nil {
		return err
	}
	if err := u.dir.makeParents(name); err != nil {
		return err
	}
	final := filepath.Join(u.dir.root, name)
	if err := u.name(final); err != nil {
		return err
	}
	// From here on Abort must not touch the name in .tmp any more; it is gone.
	f := u.f
	u.f = nil
	return errors.Join(f.Close(), durable.SyncDir(filepath.Dir(final)))
}

// name moves the file to its place.
func (u *dirUpload) name(final string) error {
	if !u.ifAbsent {
		return os.Rename(u.f.Name(), final)
	}
	err := unix.Renameat2(unix.AT_FDCWD, u.f.Name(), unix.AT_FDCWD, final, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not every filesystem has it
		if err = os.Link(u.f.Name(), final); err == nil {
			err = u.dir.remove(u.f.Name())
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return ErrExists
	}
	return err
}

func (u *dirUpload) Abort() error {
	if u.f == nil {
		return nil
	}
	if u.busy {
		<-u.written
		u.busy = false
	}
	u.release()
	f := u.f
	u.f = nil
	return errors.Join(u.dir.remove(f.Name()), f.Close())
}
