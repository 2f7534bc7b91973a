package hold

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/internal/mountinfo"
)

// Config says what to mount and how to serve it.
type Config struct {
	Backing string   // an existing directory; may be the same as Mount
	Mount   string   // an existing directory
	Source  string   // what mountinfo and df show as the source; empty: Backing
	Info    string   // path of the pid file
	Argv    []string // command line of the server; Argv[0] is the program's absolute path
	Env     []string // environment of the server; nil: as the holder's

	MaxRead    int  // greatest read request in bytes; 0: 1 MiB. The server's MountOptions.MaxWrite should be the same.
	AllowOther bool // other users may use the mount; default_permissions is always on
	Suid, Dev  bool // honour setuid bits, device files
	NoExec     bool // execute nothing

	Log     *slog.Logger
	Stdout  *os.File         // of the server; nil: the holder's
	Stderr  *os.File         // of the server; nil: the holder's
	Wanted  func() error     // asked before it mounts, when no other mount can come in between; an error is why it doesn't; may be nil
	OnReady func(server int) // called each time that a server is ready, with its pid; may be nil
	Signals <-chan os.Signal // replaces the process's SIGTERM, SIGINT and SIGUSR2; nil: those

	HangTimeout time.Duration // a server that does not answer for so long, though no disk is to blame, is replaced; 0: never
	OnAlive     func()        // called again and again while that time has not passed; must not block; may be nil
	AliveEvery  time.Duration // how often at least; 0: a sixth of HangTimeout
	OnRestart   func()        // called when a server is about to be replaced politely; may be nil
	OnStop      func()        // called when the holder has unmounted; may be nil

	QuickDeaths int  // quick deaths in a row after which the holder gives up; 0: 12
	noResend    bool // for tests: as if the kernel had no FUSE_NOTIFY_RESEND
	helper      bool // for tests: as if mount(2) were not permitted
}

const (
	defaultMaxRead     = 1 << 20
	defaultQuickDeaths = 12
	quickDeath         = 100 * time.Millisecond
	firstBackoff       = 10 * time.Millisecond
	lastBackoff        = 5 * time.Second
)

// holder is the main loop's state. Fields outside mu belong to the goroutine in run.
type holder struct {
	cfg     Config
	log     *slog.Logger
	backing *os.File
	claims  *claims
	dev     int      // the connection; -1 before the mount
	at      Mount    // what is mounted
	program *program // proven: it has served
	next    *program // of the next server; nil: program
	info    Info
	umount  chan error // result of an unmount that is under way; nil: none
	finding chan found // of a look for a program that is under way; nil: none
	quick   int        // quick deaths in a row
	served  bool       // a server has been ready on this connection

	question question
	blamed   int64    // the watch's: number of the question for which a server was ended
	last     *Restart // the polite restart that the next server comes by, or the running one came by; nil: none

	mu struct {
		sync.Mutex
		stash      map[uint64]*os.File
		init       []byte
		negotiated *negotiated
	}
}

// Run mounts and keeps a server running until the volume is unmounted, by whomever. SIGTERM, SIGINT and the end of ctx ask for an orderly unmount: the
// holder goes on, and logs who uses the mount, if it is busy. SIGUSR2 restarts the server politely. An error before the first server was ready is
// the reason why nothing is mounted; the server's own reason if it gave one.
func Run(ctx context.Context, cfg Config) error {
	h, err := newHolder(ctx, cfg)
	if err != nil {
		return err
	}
	defer h.close()
	// The terminal that it was mounted from may close.
	signal.Ignore(syscall.SIGHUP)
	sigs := cfg.Signals
	if sigs == nil {
		c := make(chan os.Signal, 4)
		signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR2)
		defer signal.Stop(c)
		sigs = c
	}
	if cfg.Wanted != nil {
		if err := cfg.Wanted(); err != nil {
			return err
		}
	}
	if err := h.mount(); err != nil {
		return err
	}
	return h.run(ctx, sigs)
}

func newHolder(ctx context.Context, cfg Config) (*holder, error) {
	if len(cfg.Argv) == 0 || cfg.Info == "" {
		return nil, errors.New("hold: Argv and Info must be set")
	}
	if cfg.MaxRead == 0 {
		cfg.MaxRead = defaultMaxRead
	}
	if cfg.QuickDeaths == 0 {
		cfg.QuickDeaths = defaultQuickDeaths
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	h := &holder{cfg: cfg, log: cfg.Log, dev: -1}
	h.mu.stash = make(map[uint64]*os.File)
	// Dead mounts first: one may cover the backing directory.
	n, err := CleanStale(ctx, cfg.Mount, cfg.Info)
	if err != nil {
		return nil, err
	}
	if n > 0 {
		h.log.Warn("removed the mount of a server that has died", "mount", cfg.Mount, "mounts", n)
	}
	if h.cfg.Mount, err = filepath.EvalSymlinks(cfg.Mount); err == nil {
		h.cfg.Mount, err = filepath.Abs(h.cfg.Mount)
	}
	if err != nil {
		return nil, fmt.Errorf("mount point: %w", err)
	}
	if h.cfg.Backing, err = filepath.Abs(cfg.Backing); err != nil {
		return nil, err
	}
	if h.cfg.Source == "" {
		h.cfg.Source = h.cfg.Backing
	}
	fd, err := unix.Open(h.cfg.Backing, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("backing directory %s: %w", h.cfg.Backing, err)
	}
	h.backing = os.NewFile(uintptr(fd), h.cfg.Backing)
	if h.claims, err = claim(&h.cfg, h.backing); err != nil {
		h.backing.Close()
		return nil, err
	}
	raiseFileLimit()
	if h.program, err = openProgram(cfg.Argv[0]); err != nil {
		h.claims.release()
		h.backing.Close()
		return nil, err
	}
	self, err := ProcessOf(os.Getpid())
	if err != nil {
		h.claims.release()
		h.backing.Close()
		h.program.file.Close()
		return nil, err
	}
	h.info = Info{Holder: self, Mount: h.cfg.Mount, Backing: h.cfg.Backing, Restarts: -1}
	return h, nil
}

// raiseFileLimit makes room for stashed descriptors: one for every unlinked file that is still open.
func raiseFileLimit() {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil {
		lim.Cur = lim.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
	}
}

// mount makes a new connection and forgets what belonged to an older one.
func (h *holder) mount() error {
	c := &h.cfg
	fd, err := mountFuse(mountOptions{Point: c.Mount, Source: c.Source, Helper: c.helper, MaxRead: c.MaxRead, AllowOther: c.AllowOther, Suid: c.Suid, Dev: c.Dev, NoExec: c.NoExec, Log: h.log})
	if err != nil {
		return err
	}
	if h.dev >= 0 {
		unix.Close(h.dev)
	}
	h.dev = fd
	h.served = false
	var ok bool
	if h.at, ok, err = mountAt(c.Mount); err != nil || !ok {
		return fmt.Errorf("%s was mounted, but is not in %s: %w", c.Mount, mountinfo.Path, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.init, h.mu.negotiated = nil, nil
	h.dropStashLocked()
	return nil
}

func (h *holder) dropStashLocked() {
	for ino, f := range h.mu.stash {
		f.Close()
		delete(h.mu.stash, ino)
	}
}

func (h *holder) close() {
	if h.dev >= 0 {
		unix.Close(h.dev)
	}
	h.setNext(nil)
	h.program.file.Close()
	h.mu.Lock()
	h.dropStashLocked()
	h.mu.Unlock()
	defer h.backing.Close()
	if err := os.Remove(h.cfg.Info); err != nil && !errors.Is(err, os.ErrNotExist) {
		h.log.Warn("the holder's pid file stays behind", "path", h.cfg.Info, "err", err)
	}
	h.claims.release() // the last: whoever waits for it finds nothing of this volume
}

// run starts servers until the connection is gone.
func (h *holder) run(ctx context.Context, sigs <-chan os.Signal) error {
	for {
		c := h.start()
		h.supervise(ctx, c, sigs)
		if h.gone() {
			h.log.Info("unmounted", "mount", h.cfg.Mount)
			return nil
		}
		h.judge(c)
		if !h.served && c.fresh {
			h.abandon()
			return c.failure()
		}
		if err := h.wait(c); err != nil {
			h.abandon()
			return err
		}
		if !h.canTakeOver() {
			h.log.Warn("this kernel can't repeat requests: the dead mount is replaced, files open in it are lost", "mount", h.cfg.Mount)
			h.abandon()
			if err := h.mount(); err != nil {
				return err
			}
		}
	}
}

// wait counts a quick death and waits its time out. ErrGaveUp if it was one too many.
func (h *holder) wait(c *child) error {
	switch {
	case c.failed:
		h.quick = 0
		return nil
	case c.polite:
		h.log.Info("the server ended as asked, starting the next", "pid", c.pid())
		h.quick = 0
		return nil
	case !c.diedQuickly():
		h.log.Warn("the server died, starting another", "pid", c.pid(), "why", c.state())
		h.quick = 0
		return nil
	}
	h.quick++
	if h.quick >= h.cfg.QuickDeaths {
		return fmt.Errorf("%w: %d times in a row, lastly: %w; unmounted %s", ErrGaveUp, h.quick, c.failure(), h.cfg.Mount)
	}
	pause := min(firstBackoff<<(h.quick-1), lastBackoff)
	h.log.Error("the server died at once, starting another", "pid", c.pid(), "why", c.failure(), "pause", pause, "deaths", h.quick)
	time.Sleep(pause)
	return nil
}

// canTakeOver: the INIT request is known, and the kernel will repeat what is unanswered.
func (h *holder) canTakeOver() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.mu.init) > 0 && h.mu.negotiated.Resend && !h.cfg.noResend
}

// gone asks the descriptor whether its mount is: a connection that has ended polls as an error. It holds in any mount namespace.
func (h *holder) gone() bool { return PeerGone(h.dev) }

// PeerGone tells whether a descriptor's other side is gone: of a connection the mount, of a pipe who would read it.
func PeerGone(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	for {
		_, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && fds[0].Revents&unix.POLLERR != 0
		}
	}
}

// abandon ends a connection that nobody serves any more, so that the path doesn't hang. The descriptor is closed first: it is the last one, and with it go the requests
// and dirty pages that an unmount would wait for.
func (h *holder) abandon() {
	if h.dev < 0 || h.gone() {
		return
	}
	unix.Close(h.dev)
	h.dev = -1
	err := h.onTop()
	if err == nil {
		err = detach(h.cfg.Mount)
	}
	if err != nil {
		h.log.Error("a dead mount stays behind", "mount", h.cfg.Mount, "err", err)
	}
}

// onTop makes sure that what would be unmounted is ours.
func (h *holder) onTop() error {
	m, ok, err := mountAt(h.cfg.Mount)
	if err == nil && (!ok || m.ID != h.at.ID) {
		err = fmt.Errorf("%s is covered by another mount: unmount that first", h.cfg.Mount)
	}
	return err
}
