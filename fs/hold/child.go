package hold

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is one server. Fields belong to the holder's main loop unless they say otherwise.
type child struct {
	cmd    *exec.Cmd
	ctl    *net.UnixConn
	fresh  bool // the first on its connection
	polite bool // told to stop
	ready  time.Time
	ended  time.Time
	exited bool   // done is closed, so cmd.ProcessState is set
	reason string // what the server said before it ended

	events chan message  // from the control reader; closed when the socket has been read to its end
	done   chan struct{} // closed when the process has ended
}

// lingerTime is how long a process may take to end after it has closed its control socket, before the next server is started beside it.
const lingerTime = 100 * time.Millisecond

// drainTimeout bounds the reading of a dead server's control socket. It is at its end at once, unless a child of the server got hold of it.
const drainTimeout = 5 * time.Second

// start runs a server on the connection.
func (h *holder) start() (*child, error) {
	// Left by a server that was stopped politely.
	if err := unix.SetNonblock(h.dev, false); err != nil {
		return nil, err
	}
	ctl, remote, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer remote.Close()
	dup, err := unix.FcntlInt(uintptr(h.dev), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		ctl.Close()
		return nil, err
	}
	dev := os.NewFile(uintptr(dup), fuseDevice)
	defer dev.Close()
	cmd := &exec.Cmd{
		Path: h.argv0, Args: h.cfg.Argv, Env: h.cfg.Env, Dir: "/",
		Stdout: orDefault(h.cfg.Stdout, os.Stdout), Stderr: orDefault(h.cfg.Stderr, os.Stderr),
		ExtraFiles: []*os.File{dev, h.backing, remote},
		// A group of its own: ^C on the terminal is for the holder, which then unmounts.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, envMark+"=1")
	c := &child{cmd: cmd, ctl: ctl, fresh: !h.served, events: make(chan message, 16), done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		ctl.Close()
		return nil, fmt.Errorf("start the server: %w", err)
	}
	h.note(cmd.Process.Pid)
	go h.serveControl(c)
	go func() {
		cmd.Wait()
		ctl.SetReadDeadline(time.Now().Add(drainTimeout))
		close(c.done)
	}()
	return c, nil
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
		if !h.keep(m) {
			c.events <- m
		}
	}
}

// greet sends hello and everything stashed. Descriptors stay in the stash: the next server may need them too.
func (h *holder) greet(c *child) error {
	h.mu.Lock()
	hello := message{Op: opHello, Version: protocolVersion, Takeover: !c.fresh, Mount: h.cfg.Mount, Backing: h.cfg.Backing,
		Init: h.mu.init, Negotiated: h.mu.negotiated, Count: len(h.mu.stash)}
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
			h.log.Warn("the server's process waits for requests of its own, which the next server will answer", "pid", c.cmd.Process.Pid)
		case sig := <-sigs:
			if sig == syscall.SIGUSR2 {
				h.stop(c)
			} else {
				h.unmount()
			}
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
	c.ctl.Close()
}

func (h *holder) handle(c *child, m message) {
	switch m.Op {
	case opReady:
		c.ready = time.Now()
		h.served = true
		if h.cfg.OnReady != nil {
			h.cfg.OnReady(c.cmd.Process.Pid)
		}
	case opFail:
		c.reason = m.Error
	case opRestart:
		if m.Path != "" {
			h.argv0 = m.Path
		}
		h.stop(c)
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
		result <- err
	}()
}

func (c *child) diedQuickly() bool {
	return c.ready.IsZero() || c.ended.Sub(c.ready) < quickDeath
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
