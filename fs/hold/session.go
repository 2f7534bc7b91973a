package hold

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Descriptors that a server inherits.
const (
	devFD     = 3
	backingFD = 4
	controlFD = 5
)

// envMark tells a server that its holder gave it descriptors.
const envMark = "GRAPHVOL_HELD"

// Session is the server's side of a holder. Its methods may be called concurrently.
type Session struct {
	log      *slog.Logger
	ctl      *net.UnixConn
	backing  *os.File
	hello    message
	stashed  map[uint64]*os.File
	dev      int           // a second descriptor of the connection, for what happens outside go-fuse's reader
	stopping chan struct{} // closed when the holder has asked for an end

	beforeStop func()

	mu struct {
		sync.Mutex
		stopped bool // stopping is closed
		ready   time.Time
		resend  bool // the kernel repeats requests
	}
}

// Attach takes what the holder has left for this process. It must be called once and early, before descriptors are opened that nobody needs. ErrNoHolder if
// no holder started the process.
func Attach(log *slog.Logger) (*Session, error) {
	if os.Getenv(envMark) == "" {
		return nil, ErrNoHolder
	}
	nameProcess()
	// Children of the server must not inherit any of it.
	os.Unsetenv(envMark)
	for fd := devFD; fd <= controlFD; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("%w: descriptor %d: %w", ErrNoHolder, fd, err)
		}
	}
	s := &Session{log: log, stashed: make(map[uint64]*os.File), stopping: make(chan struct{})}
	s.backing = os.NewFile(backingFD, "backing")
	var err error
	if s.dev, err = unix.FcntlInt(devFD, unix.F_DUPFD_CLOEXEC, controlFD+1); err != nil {
		return nil, err
	}
	if s.ctl, err = connFrom(controlFD); err != nil {
		return nil, err
	}
	if err := s.receiveHello(); err != nil {
		return nil, err
	}
	go s.listen()
	return s, nil
}

func (s *Session) receiveHello() error {
	var err error
	if s.hello, err = receive(s.ctl); err != nil {
		return fmt.Errorf("the holder's greeting: %w", err)
	}
	if s.hello.Op != opHello {
		return fmt.Errorf("the holder's greeting: %w: it is %q", errMessage, s.hello.Op)
	}
	for range s.hello.Count {
		m, err := receive(s.ctl)
		if err != nil {
			return fmt.Errorf("the holder's descriptors: %w", err)
		}
		if m.Op != opStashed || m.file == nil {
			return fmt.Errorf("the holder's descriptors: %w: %q", errMessage, m.Op)
		}
		s.stashed[m.Ino] = m.file
	}
	return nil
}

// listen waits for the holder to say stop, or to die.
func (s *Session) listen() {
	for {
		m, err := receive(s.ctl)
		if errors.Is(err, errMessage) {
			s.log.Warn("a message of the holder is ignored", "err", err)
			continue
		}
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.log.Warn("the holder is gone: if this server dies too, the mount is dead", "mount", s.hello.Mount, "err", err)
			}
			return
		}
		switch m.Op {
		case opPing:
			s.tell(message{Op: opPong, Seq: m.Seq}) // that the holder is gone is seen by the next receive
		case opStop:
			s.stop()
		}
	}
}

func (s *Session) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.stopped {
		s.mu.stopped = true
		close(s.stopping)
	}
}

// Takeover reports whether an earlier server has served this mount: the kernel knows inodes and has files open.
func (s *Session) Takeover() bool { return s.hello.Takeover }

// Mount is the absolute path of the mount point.
func (s *Session) Mount() string { return s.hello.Mount }

// BackingPath is the path of the backing directory, for people; use Backing to reach it, since the mount may cover the path.
func (s *Session) BackingPath() string { return s.hello.Backing }

// Backing is the backing directory, opened before the mount. The session owns it.
func (s *Session) Backing() *os.File { return s.backing }

// Stashed returns what earlier servers stashed and did not let go. The caller owns the files; the holder keeps its own descriptors until Unstash.
func (s *Session) Stashed() map[uint64]*os.File { return s.stashed }

// Stash gives the holder a duplicate of f to keep for the next server, replacing an earlier one for ino. When it returns, the descriptor
// survives this process. ErrHolderGone if nobody can keep it.
func (s *Session) Stash(ino uint64, f *os.File) error {
	return s.tell(message{Op: opStash, Ino: ino, file: f})
}

// Unstash lets the holder close what it keeps for ino; nothing happens if it has nothing.
func (s *Session) Unstash(ino uint64) error { return s.tell(message{Op: opUnstash, Ino: ino}) }

// Restart asks the holder for another server in place of this one. Serve then returns ErrRestart. program is an open executable that was found at path; nil: the
// same program again. It must not lie behind the mount. If it doesn't come so far as to serve, this program is started again; Restarted tells.
func (s *Session) Restart(path string, program *os.File) error {
	return s.tell(message{Op: opRestart, Path: path, file: program})
}

// Restarted tells of the polite restart that this server came by, and how long requests waited for it; 0: it doesn't serve yet, or nobody knows. The last
// result is false for a server that was started otherwise.
func (s *Session) Restarted() (Restart, time.Duration, bool) {
	r := s.hello.Restart
	if r == nil {
		return Restart{}, 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Paused == 0 || s.mu.ready.IsZero() {
		return *r, 0, true
	}
	return *r, s.mu.ready.Sub(time.Unix(0, r.Paused)), true
}

// CanRestart reports whether the kernel repeats requests. Where it doesn't, a restart costs the files that are open.
func (s *Session) CanRestart() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.resend
}

// BeforeStop has fn called when the holder has asked for an end, while requests are still served. It must be called before Serve.
func (s *Session) BeforeStop(fn func()) { s.beforeStop = fn }

// Unmount asks the holder for an orderly unmount. Serve returns nil when it has happened; if the mount is busy the holder logs who uses it.
func (s *Session) Unmount() error { return s.tell(message{Op: opUnmount}) }

// Fail tells the holder why this process won't serve. The process should exit with a code other than 0 afterwards.
func (s *Session) Fail(reason error) { s.tell(message{Op: opFail, Error: reason.Error()}) }

func (s *Session) tell(m message) error {
	if err := send(s.ctl, m); err != nil {
		return fmt.Errorf("%w: %w", ErrHolderGone, err)
	}
	return nil
}

// resendBit is FUSE_UNIQUE_RESEND.
const resendBit = 1 << 63

// Resent reports whether the kernel has sent this request before, to a server that died without answering it. It may have been carried out, in whole or
// in part; requests that can't be repeated (create, mkdir, link, unlink, rename…) must recognise their own earlier success.
func Resent(h *fuse.InHeader) bool { return h.Unique&resendBit != 0 }

// RequestID is the kernel's number of a request, the same when it is sent again.
func RequestID(h *fuse.InHeader) uint64 { return h.Unique &^ resendBit }
