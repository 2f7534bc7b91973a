package hold

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// negotiated is what the first server's INIT answer was made from. Later ones must give the same answer, since the kernel hears only the first; a newer
// version may have other wishes.
type negotiated struct {
	Resend               bool   `json:"resend"` // the kernel repeats requests
	MaxWrite             int    `json:"max_write"`
	MaxReadAhead         int    `json:"max_read_ahead"`
	Extra                uint64 `json:"extra"`
	Disabled             uint64 `json:"disabled"`
	EnableLocks          bool   `json:"enable_locks"`
	EnableSymlinkCaching bool   `json:"enable_symlink_caching"`
	EnableACL            bool   `json:"enable_acl"`
	ExplicitCache        bool   `json:"explicit_cache"`
	SyncRead             bool   `json:"sync_read"`
	DisableReadDirPlus   bool   `json:"disable_readdirplus"`
	IDMapped             bool   `json:"idmapped"`
}

func negotiatedFrom(o *fuse.MountOptions, in *fuse.InitIn) *negotiated {
	return &negotiated{
		Resend:   in.Flags64()&fuse.CAP_HAS_RESEND != 0,
		MaxWrite: o.MaxWrite, MaxReadAhead: o.MaxReadAhead, Extra: o.ExtraCapabilities, Disabled: o.DisabledCapabilities,
		EnableLocks: o.EnableLocks, EnableSymlinkCaching: o.EnableSymlinkCaching, EnableACL: o.EnableAcl,
		ExplicitCache: o.ExplicitDataCacheControl, SyncRead: o.SyncRead, DisableReadDirPlus: o.DisableReadDirPlus, IDMapped: o.IDMappedMount,
	}
}

func (n *negotiated) apply(o *fuse.MountOptions) {
	o.MaxWrite, o.MaxReadAhead, o.ExtraCapabilities, o.DisabledCapabilities = n.MaxWrite, n.MaxReadAhead, n.Extra, n.Disabled
	o.EnableLocks, o.EnableSymlinkCaching, o.EnableAcl = n.EnableLocks, n.EnableSymlinkCaching, n.EnableACL
	o.ExplicitDataCacheControl, o.SyncRead, o.DisableReadDirPlus, o.IDMappedMount = n.ExplicitCache, n.SyncRead, n.DisableReadDirPlus, n.IDMapped
}

// stopTimeout bounds the wait for requests in flight when the holder asked for an end. What is unanswered then is sent again to the next server.
const stopTimeout = 10 * time.Second

// Serve answers the kernel's requests with raw until the mount is gone (nil), or the holder starts another server (ErrRestart). It must be called at most once.
// raw.Init is called before the first request, as by fuse.NewServer; raw.OnUnmount when all loops have ended, which does not
// mean that the mount is gone. In a takeover, the options that INIT negotiates are those of the first server, whatever opts says.
func (s *Session) Serve(raw fuse.RawFileSystem, opts *fuse.MountOptions) error {
	o := *opts
	o.ExtraCapabilities |= fuse.CAP_HAS_RESEND
	// With these set go-fuse would mount at the descriptor's path, over /dev/fuse itself.
	o.DirectMount, o.DirectMountStrict = false, false
	o.Logger = log.New(&logWriter{s}, "", 0)
	srv, err := s.connect(raw, &o)
	if err != nil {
		s.Fail(err)
		return err
	}
	if err := keepResident(srv); err != nil {
		s.log.Warn(err.Error())
	}
	s.mu.Lock()
	s.mu.ready = time.Now()
	s.mu.Unlock()
	if err := s.tell(message{Op: opReady}); err != nil {
		s.log.Warn("nobody hears that the mount is ready", "err", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve()
	}()
	select {
	case <-done:
	case <-s.stopping:
		if s.beforeStop != nil {
			s.beforeStop()
		}
		s.tell(message{Op: opPaused}) // without a holder nobody has asked for this
		s.drain(done)
	}
	switch {
	case PeerGone(s.dev):
		return nil
	case s.isStopping():
		return ErrRestart
	}
	return errors.New("the FUSE device can't be read any more, though it is mounted")
}

// connect makes the go-fuse server, with INIT answered.
func (s *Session) connect(raw fuse.RawFileSystem, o *fuse.MountOptions) (*fuse.Server, error) {
	if s.Takeover() {
		return s.takeOver(raw, o)
	}
	srv, err := fuse.NewServer(raw, devPath(), o)
	if err != nil {
		return nil, fmt.Errorf("first request of the kernel: %w", err)
	}
	in := srv.KernelSettings()
	init := bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(in)), unsafe.Sizeof(*in)))
	n := negotiatedFrom(o, in)
	s.noteResend(n)
	if err := s.tell(message{Op: opInit, Init: init, Negotiated: n}); err != nil {
		s.log.Warn("a restart of the server will not be possible", "err", err)
	}
	return srv, nil
}

func (s *Session) noteResend(n *negotiated) {
	s.mu.Lock()
	s.mu.resend = n.Resend
	s.mu.Unlock()
}

// takeOver lets go-fuse read the saved INIT from a socket that stands in the device's place, puts the device there, and has the kernel
// repeat what is unanswered.
func (s *Session) takeOver(raw fuse.RawFileSystem, o *fuse.MountOptions) (*fuse.Server, error) {
	if len(s.hello.Init) == 0 || s.hello.Negotiated == nil {
		return nil, errors.New("the holder doesn't know the kernel's INIT request")
	}
	s.hello.Negotiated.apply(o)
	s.noteResend(s.hello.Negotiated)
	sp, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(sp[1])
	err = unix.Dup3(sp[0], devFD, unix.O_CLOEXEC)
	unix.Close(sp[0])
	if err != nil {
		return nil, err
	}
	if _, err := unix.Write(sp[1], s.hello.Init); err != nil {
		return nil, err
	}
	srv, err := fuse.NewServer(raw, devPath(), o)
	if err != nil {
		return nil, fmt.Errorf("the saved INIT request: %w", err)
	}
	if err := unix.Dup3(s.dev, devFD, unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	return srv, s.resend()
}

func devPath() string { return filepath.Join("/dev/fd", strconv.Itoa(devFD)) }

// resend writes FUSE_NOTIFY_RESEND: an out header without a request's number, whose error field is the notification's code.
func (s *Session) resend() error {
	const notifyResend = 7
	out := fuse.OutHeader{Length: uint32(unsafe.Sizeof(fuse.OutHeader{})), Status: notifyResend}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&out)), unsafe.Sizeof(out))
	if _, err := unix.Write(s.dev, b); err != nil {
		if PeerGone(s.dev) {
			return nil // unmounted meanwhile; Serve will see it
		}
		return fmt.Errorf("ask the kernel to repeat its requests: %w", err)
	}
	return nil
}

// drain makes go-fuse's readers stop and waits until what they had read is answered. A descriptor that doesn't block makes the next read
// fail when there is nothing to read; a signal makes those that block already start their read again and meet that. SIGURG is
// the runtime's own, harmless at any time.
func (s *Session) drain(done <-chan struct{}) {
	if err := unix.SetNonblock(s.dev, true); err != nil {
		s.log.Warn("requests in flight are left to the next server", "err", err)
		return
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(stopTimeout)
	for {
		wakeThreads()
		select {
		case <-done:
			return
		case <-limit:
			s.log.Warn("requests in flight take too long and are left to the next server")
			return
		case <-tick.C:
		}
	}
}

func wakeThreads() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	pid := os.Getpid()
	for _, t := range tasks {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			unix.Tgkill(pid, tid, unix.SIGURG)
		}
	}
}

func (s *Session) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// logWriter turns go-fuse's log lines into records, except the readers' last words in drain.
type logWriter struct{ s *Session }

func (w *logWriter) Write(p []byte) (int, error) {
	if !w.s.isStopping() || !bytes.Contains(p, []byte("Failed to read from fuse conn")) {
		w.s.log.Warn("fuse: " + string(bytes.TrimSpace(p)))
	}
	return len(p), nil
}
