package hold

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// AliveAttr is an extended attribute of the root by which the holder asks whether requests are answered. The kernel keeps no attributes of
// this kind, so each question reaches the server, which has to answer (whatever) without the disk's help: a slow disk is no hang.
const AliveAttr = "system.graphvol.alive"

const (
	// trialTimeout bounds the start of a server whose program is on trial, where Config.HangTimeout says nothing.
	trialTimeout = 30 * time.Second
	// watchTicks is how often a server is looked at within HangTimeout. Ticks are counted, not time: a machine that was suspended, or a holder
	// that was stopped together with its server, has missed one of them.
	watchTicks = 6
	// stacksTime is how long a hung server may take to write its stacks.
	stacksTime = 5 * time.Second
)

// question is a request to the mount, one at a time: it waits as long as nobody answers.
type question struct {
	busy atomic.Bool
	n    atomic.Int64
}

func (q *question) ask(point string) {
	if q.busy.Swap(true) {
		return
	}
	q.n.Add(1)
	go func() {
		// Its result doesn't matter: that there is one does. A connection that has ended answers as well.
		unix.Getxattr(point, AliveAttr, nil)
		q.busy.Store(false)
	}()
}

// vitals is what is known of a server after a tick. Ticks in which it waits for a disk are not counted: when the disk is back it has
// all its time again.
type vitals struct {
	trial    bool // its program is new
	answered bool // it has answered on the control socket
	disk     bool // it waits for a disk
	silent   int  // ticks that the last question there waits for an answer
	starting int  // ticks that it has been starting
	serving  int  // ticks that it has been serving
	stuck    int  // ticks that the question to the mount has waited, though the process lives and serves
}

// hang says why a server counts as hung; empty: it doesn't. A start may take long on a slow disk, so it is bounded only where
// nothing shows that the server lives, or the former program could serve meanwhile.
func (v vitals) hang(limit int) string {
	switch {
	case v.silent >= limit && (v.answered || v.serving > 0):
		return "its process does not answer"
	case v.stuck >= limit:
		return "requests of the mount are not answered"
	case v.starting >= 2*limit && (v.trial || !v.answered):
		return "it does not begin to serve"
	}
	return ""
}

// watch looks after a server until the main loop has seen its end, and tells the main loop, once, if it hangs.
func (h *holder) watch(c *child) {
	defer close(c.watched)
	every, limit := h.watchPlan()
	tick := time.NewTicker(every)
	defer tick.Stop()
	v := vitals{trial: c.program != h.program}
	for asked, told := uint64(0), false; ; {
		if c.greeted.Load() && c.answer.Load() == asked {
			asked++
			send(c.ctl, message{Op: opPing, Seq: asked}) // a server that has ended is noticed otherwise
		}
		// Not before it has served for a tick: who mounts and unmounts at once would find the mount in use.
		if v.serving > 0 {
			h.question.ask(h.cfg.Mount)
		}
		select {
		case <-c.over:
			return
		case <-tick.C:
		}
		v.next(c, asked, h.question.busy.Load())
		why := v.hang(limit)
		switch {
		case why == "" || h.excused(c, v):
			h.alive()
		case !told && (h.cfg.HangTimeout > 0 || v.trial && !c.serves.Load()):
			told = true
			c.hung <- why
		}
	}
}

// watchPlan gives how often to look, and how many looks without an answer are a hang.
func (h *holder) watchPlan() (every time.Duration, limit int) {
	timeout := h.cfg.HangTimeout
	if timeout == 0 {
		timeout = trialTimeout
	}
	every = timeout / watchTicks
	if h.cfg.AliveEvery > 0 {
		every = min(every, h.cfg.AliveEvery)
	}
	return every, int((timeout + every - 1) / every)
}

func (h *holder) alive() {
	if h.cfg.OnAlive != nil {
		h.cfg.OnAlive()
	}
}

// next counts a tick.
func (v *vitals) next(c *child, asked uint64, waiting bool) {
	count := func(n *int, on bool) {
		*n++
		if !on {
			*n = 0
		}
	}
	heard, serves := c.answer.Load(), c.serves.Load()
	v.answered = v.answered || heard > 0
	v.disk = (heard != asked || !serves) && waitsForDisk(c.pid())
	count(&v.silent, heard != asked && !v.disk)
	count(&v.starting, !serves && !v.disk)
	count(&v.serving, serves)
	count(&v.stuck, waiting && serves && heard == asked)
}

// excused reports whether replacing a server that counts as hung would not help: the one before it was replaced for the same question to
// the mount, which still waits.
func (h *holder) excused(c *child, v vitals) bool {
	if v.stuck == 0 || v.silent > 0 {
		return false
	}
	n := h.question.n.Load()
	if n != h.blamed {
		h.blamed = n
		return false
	}
	if !c.excused {
		c.excused = true
		h.log.Warn("a request to the mount is not answered, and another server did not help: something else on the path hangs", "mount", h.cfg.Mount)
	}
	return true
}

// waitsForDisk reports whether a thread of a process is in the kernel's uninterruptible sleep: a page fault that waits for a disk stops all of a
// Go program sooner or later. A process that was stopped doesn't wait for anything, however its threads sleep; nor does a thread that waits for
// a FUSE server, as those do that flush the server's own mount.
func waitsForDisk(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	waits := false
	for _, path := range stats {
		b, err := os.ReadFile(path)
		i := bytes.LastIndexByte(b, ')') // ends the name, which may contain anything
		if err != nil || i < 0 || len(b) < i+3 {
			continue
		}
		switch b[i+2] {
		case 'T', 't':
			return false
		case 'D':
			at, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "wchan"))
			waits = waits || string(at) != "request_wait_answer"
		}
	}
	return waits
}

// endHung has a server write its stacks and ends it; the main loop goes on with what that brings about.
func (h *holder) endHung(c *child, why string) {
	c.reason = "the server hangs: " + why
	h.log.Error("the server hangs and is replaced; its stacks are in its standard error (STATE/log/stderr.log)", "pid", c.pid(), "why", why)
	go func() {
		c.cmd.Process.Signal(syscall.SIGQUIT)
		c.cmd.Process.Signal(syscall.SIGCONT) // a stopped process would not write anything
		select {
		case <-c.done:
		case <-time.After(stacksTime):
		}
		c.cmd.Process.Kill()
	}()
}
