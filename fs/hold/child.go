package hold

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/internal/fusedev"
)

// child is one server. Fields belong to the holder's main loop unless they say otherwise.
type child struct {
	cmd     *exec.Cmd
	program *program
	ctl     *net.UnixConn
	fresh   bool // the first on its connection
	polite  bool // told to stop
	failed  bool // its program was on trial, and is given up
	restart *Restart
	ready   time.Time
	ended   time.Time
	exited  bool   // done is closed, so cmd.ProcessState is set
	reason  string // what the server said before it ended

	events chan message  // from the control reader; closed when the socket has been read to its end
	done   chan struct{} // closed when the process has ended

	// Between the main loop, the control reader and the watch.
	greeted atomic.Bool   // hello, which comes first, is sent
	answer  atomic.Uint64 // the last ping that was answered
	serves  atomic.Bool   // it is ready
	hung    chan string   // why the watch takes it for hung; one at most
	over    chan struct{} // closed when the main loop has done with it
	watched chan struct{} // closed when the watch has ended
	excused bool          // the watch's
}

// lingerTime is how long a process may take to end after it has closed its control socket, before the next server is started beside it.
const lingerTime = 100 * time.Millisecond

// drainTimeout bounds the reading of a dead server's control socket. It is at its end at once, unless a child of the server got hold of it.
const drainTimeout = 5 * time.Second

// start runs a server on the connection. One that can't be started counts as one that died at once: the next attempt may go better.
func (h *holder) start() *child {
	c := &child{program: h.program, fresh: !h.served, events: make(chan message, 16), done: make(chan struct{}),
		hung: make(chan string, 1), over: make(chan struct{}), watched: make(chan struct{})}
	if h.next != nil {
		c.program, h.next = h.next, nil
	}
	if h.last != nil {
		last := *h.last
		c.restart = &last
	}
	if err := h.spawn(c); err != nil {
		c.reason = fmt.Sprintf("start the server: %v", err)
		close(c.events)
		close(c.done)
	}
	return c
}

func (h *holder) spawn(c *child) error {
	// Left by a server that was stopped politely.
	if err := unix.SetNonblock(h.dev, false); err != nil {
		return err
	}
	ctl, remote, err := socketpair()
	if err != nil {
		return err
	}
	defer remote.Close()
	dup, err := unix.FcntlInt(uintptr(h.dev), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		ctl.Close()
		return err
	}
	dev := os.NewFile(uintptr(dup), fusedev.Path)
	defer dev.Close()
	cmd := &exec.Cmd{
		Path: c.program.link(), Args: append([]string{c.program.path}, h.cfg.Argv[1:]...), Env: h.cfg.Env, Dir: "/",
		Stdout: orDefault(h.cfg.Stdout, os.Stdout), Stderr: orDefault(h.cfg.Stderr, os.Stderr),
		ExtraFiles: []*os.File{dev, h.backing, remote},
		// A group of its own: ^C on the terminal is for the holder, which then unmounts.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, envMark+"=1")
	if err := cmd.Start(); err != nil {
		ctl.Close()
		return fmt.Errorf("%s: %w", c.program.path, plainCause(err))
	}
	c.cmd, c.ctl = cmd, ctl
	h.note(cmd.Process.Pid)
	go h.serveControl(c)
	go h.watch(c)
	go func() {
		cmd.Wait()
		ctl.SetReadDeadline(time.Now().Add(drainTimeout))
		close(c.done)
	}()
	return nil
}

// plainCause leaves out the path of an error: it is that of a descriptor.
func plainCause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func orDefault(f, def *os.File) *os.File {
	if f != nil {
		return f
	}
	return def
}

// note writes the pid file. The volume works without it, so failing is only logged.
func (h *holder) note(pid int) {
	h.info.Restarts++
	h.info.Server, _ = ProcessOf(pid)
	if err := h.info.write(h.cfg.Info); err != nil {
		h.log.Warn("the holder's pid file is not up to date", "path", h.cfg.Info, "err", err)
	}
}

// serveControl greets the server and then reads what it says until it ends. Stashing is done here, so that it is complete when events is closed.
func (h *holder) serveControl(c *child) {
	defer close(c.events)
	if err := h.greet(c); err != nil {
		h.log.Warn("the server ended before it was greeted", "err", err)
	}
	c.greeted.Store(true)
	for {
		m, err := receive(c.ctl)
		if errors.Is(err, errMessage) {
			h.log.Warn("a message of the server is ignored", "err", err)
			continue
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				h.log.Error("control socket", "err", err)
			}
			return
		}
		switch {
		case m.Op == opPong:
			c.answer.Store(m.Seq)
		case !h.keep(m):
			c.events <- m
		}
	}
}

// greet sends hello and everything stashed. Descriptors stay in the stash: the next server may need them too.
func (h *holder) greet(c *child) error {
	h.mu.Lock()
	hello := message{Op: opHello, Version: ProtocolVersion, Takeover: !c.fresh, Mount: h.cfg.Mount, Backing: h.cfg.Backing,
		Init: h.mu.init, Negotiated: h.mu.negotiated, Count: len(h.mu.stash), Restart: c.restart}
	stash := make([]message, 0, len(h.mu.stash))
	for ino, f := range h.mu.stash {
		stash = append(stash, message{Op: opStashed, Ino: ino, file: f})
	}
	h.mu.Unlock()
	for _, m := range append([]message{hello}, stash...) {
		if err := send(c.ctl, m); err != nil {
			return err
		}
	}
	return nil
}

// keep handles the messages that only store something.
func (h *holder) keep(m message) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch m.Op {
	case opInit:
		h.mu.init, h.mu.negotiated = m.Init, m.Negotiated
	case opStash:
		if m.file == nil {
			h.log.Error("a descriptor to keep did not arrive", "ino", m.Ino)
			return true
		}
		if old := h.mu.stash[m.Ino]; old != nil {
			old.Close()
		}
		h.mu.stash[m.Ino] = m.file
	case opUnstash:
		if f := h.mu.stash[m.Ino]; f != nil {
			f.Close()
			delete(h.mu.stash, m.Ino)
		}
	default:
		return false
	}
	return true
}

// supervise returns when all the server said has been heard and the server has ended, or is past the point where it could read requests: its descriptors
// are closed, and what is left of it waits for answers from its successor (see WithOwnFiles).
func (h *holder) supervise(ctx context.Context, c *child, sigs <-chan os.Signal) {
	if c.cmd == nil { // it couldn't be started
		c.ended = time.Now()
		return
	}
	done, asked := c.done, ctx.Done()
	events := c.events
	var linger <-chan time.Time
	for done != nil || events != nil {
		select {
		case m, ok := <-events:
			if ok {
				h.handle(c, m)
				continue
			}
			events = nil
			c.ended = time.Now()
			// The socket closes with the process; should only the socket have been closed, there must not be two servers.
			c.cmd.Process.Kill()
			linger = time.After(lingerTime)
		case <-done:
			done = nil
			c.exited = true
		case <-linger:
			done = nil
			h.log.Warn("the server's process waits for requests of its own, which the next server will answer", "pid", c.pid())
		case sig := <-sigs:
			if sig == syscall.SIGUSR2 {
				h.findProgram(c)
			} else {
				h.unmount()
			}
		case f := <-h.finding:
			h.restartFound(c, f)
		case why := <-c.hung:
			h.endHung(c, why)
		case <-asked:
			asked = nil
			h.unmount()
		case err := <-h.umount:
			h.umount = nil
			if err != nil {
				h.log.Error("not unmounted", "err", err)
			}
		}
	}
	close(c.over)
	<-c.watched
	c.ctl.Close()
}

func (h *holder) handle(c *child, m message) {
	switch m.Op {
	case opReady:
		c.ready = time.Now()
		c.serves.Store(true)
		h.served = true
		if h.cfg.OnReady != nil {
			h.cfg.OnReady(c.pid())
		}
	case opFail:
		c.reason = m.Error
	case opRestart:
		h.restartAsked(c, m)
	case opPaused:
		h.notePause()
	case opUnmount:
		h.unmount()
	default:
		h.log.Warn("the server asks for something unknown", "op", m.Op)
		if m.file != nil {
			m.file.Close()
		}
	}
}

// stop asks the server to finish and end; the main loop starts the next.
func (h *holder) stop(c *child) {
	c.polite = true
	if err := send(c.ctl, message{Op: opStop}); err != nil {
		h.log.Warn("the server can't be told to stop", "err", err)
	}
}

// unmount runs beside the main loop: the kernel writes back through the server first, which may have to be restarted meanwhile.
func (h *holder) unmount() {
	if h.umount != nil {
		return
	}
	result := make(chan error, 1)
	h.umount = result
	go func() {
		err := h.onTop()
		if err == nil {
			err = unmount(h.at)
		}
		if err == nil && h.cfg.OnStop != nil {
			h.cfg.OnStop()
		}
		result <- err
	}()
}

func (c *child) diedQuickly() bool {
	return c.ready.IsZero() || c.ended.Sub(c.ready) < quickDeath
}

// proven: what it is a process of can serve.
func (c *child) proven() bool { return !c.diedQuickly() || c.polite && !c.ready.IsZero() }

func (c *child) pid() int {
	if c.cmd == nil {
		return 0
	}
	return c.cmd.Process.Pid
}

// state says how the process ended: "exit status 1", "signal: killed".
func (c *child) state() string {
	if !c.exited {
		return "ending"
	}
	return c.cmd.ProcessState.String()
}

// failure is why a server ended: in its own words, if it had time for some.
func (c *child) failure() error {
	if c.reason != "" {
		return errors.New(c.reason)
	}
	return fmt.Errorf("the server ended: %s", c.state())
}
