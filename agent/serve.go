package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"graphvol/fs"
	"graphvol/fs/browse"
	"graphvol/fs/cow"
	"graphvol/fs/hold"
	"graphvol/index"
	"graphvol/snapshot"
)

const (
	// memoryTarget is the heap size that the collector works towards; what must live may exceed it.
	memoryTarget = 192 << 20
	// closeBound bounds what is done for pending snapshots after the mount is gone.
	closeBound = 2 * time.Minute
	// answerBound is for answers that are on their way then; the database waits.
	answerBound = 50 * time.Millisecond
	// politeBound is for those that settle has left over before a restart: the database waits.
	politeBound = time.Second
)

// Serve is the main function of a server process that a holder has started: it opens the volume, answers the kernel
// and the socket until the volume is unmounted, and closes everything in order.
func Serve(ctx context.Context, o MountOptions, version string) error {
	lf, err := OpenLog(o.State, agentLogName, os.Stderr)
	if err != nil {
		return err
	}
	defer lf.Close()
	log := NewLogger(lf, o.LogLevel)
	prepareProcess(log)
	sess, err := hold.Attach(log)
	if err != nil {
		return err
	}
	s, err := openServer(ctx, sess, o, version, log)
	if err != nil {
		log.Error("the server can't serve", "err", err)
		sess.Fail(errors.New(Message(statusOf(ctx, log, "mounting", err))))
		return err
	}
	err = s.run(ctx)
	log.Info("the server ends", "err", err)
	return err
}

// prepareProcess makes this process fit to be a filesystem.
func prepareProcess(log *slog.Logger) {
	// Modes come from the callers, whose own umask the kernel has applied or sent along.
	unix.Umask(0)
	// ^C on a terminal and the end of a session are for the holder.
	signal.Ignore(os.Interrupt, unix.SIGHUP, unix.SIGPIPE)
	debug.SetMemoryLimit(memoryTarget)
	// Most goroutines wait in system calls. With more processors than cores one that returns finds a free one at once: a
	// synced write is 8 % faster.
	runtime.GOMAXPROCS(2 * runtime.NumCPU())
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil {
		lim.Cur = lim.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
			log.Warn("few files can be open at once", "err", err)
		}
	}
	// The kernel must not wait for this process to write out pages when this process asks for memory.
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		log.Debug("no protection against memory deadlocks", "err", err)
	}
}

// server is one volume's running agent.
type server struct {
	opts   MountOptions
	log    *slog.Logger
	sess   *hold.Session
	repo   *snapshot.Repo // nil: its index can't be used
	copies *remotes
	vol    *cow.Volume
	browse *browse.FS
	front  *fs.Server
	svc    *service
	grpc   *grpc.Server
	ln     net.Listener

	problem string    // for status
	noIndex *Error    // why repo is nil
	spare   *index.DB // stands in for the index then
}

// run serves until the mount is gone or the holder starts another server in this one's place.
func (s *server) run(ctx context.Context) error {
	go func() {
		if err := s.grpc.Serve(s.ln); err != nil {
			s.log.Error("the socket is not served any more", "err", err)
		}
	}()
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	defer signal.Stop(term)
	stop := make(chan struct{})
	defer close(stop)
	go s.forward(term, stop)
	err := s.sess.Serve(s.front, fs.MountOptions(fs.Options{Cache: fs.Cache(s.opts.Cache)}))
	if errors.Is(err, hold.ErrRestart) {
		return s.close(ctx, false)
	}
	return errors.Join(err, s.close(ctx, true))
}

// forward makes SIGTERM what it means for the holder: an orderly unmount.
func (s *server) forward(term <-chan os.Signal, stop <-chan struct{}) {
	for {
		select {
		case <-term:
			if err := s.sess.Unmount(); err != nil {
				s.log.Warn("SIGTERM has no effect", "err", err)
			}
		case <-stop:
			return
		}
	}
}

// close closes what is open, from the top down. unmounted: nothing can change the volume any more.
func (s *server) close(ctx context.Context, unmounted bool) error {
	bound := politeBound
	if unmounted {
		bound = closeBound
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bound)
	defer cancel()
	var errs []error
	if s.svc != nil {
		s.svc.finish(ctx)
	}
	s.copies.close()
	if s.grpc != nil {
		s.stopServing()
	}
	if s.ln != nil {
		// Its file stays, and makes room for the next server's where the disk has none for one more. A command sees at once that nobody listens.
		if err := s.ln.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.browse != nil {
		s.browse.Close()
	}
	if s.repo != nil {
		s.repo.SetLive(nil)
	}
	if s.vol != nil && unmounted {
		errs = append(errs, s.vol.Close(ctx))
	}
	if s.repo != nil {
		errs = append(errs, s.repo.Close())
	}
	if s.spare != nil {
		errs = append(errs, s.spare.Close())
	}
	if s.spare != nil && unmounted {
		errs = append(errs, os.RemoveAll(filepath.Join(s.opts.State, spareName)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the volume of %s: %w", filepath.Base(s.opts.State), err)
	}
	return nil
}

// stopServing lets calls that have their answer send it: who asked for an upgrade must not take that for a death.
func (s *server) stopServing() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	select {
	case <-done:
	case <-time.After(answerBound):
	}
	s.grpc.Stop() // ends the other, too
	<-done
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
