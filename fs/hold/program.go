package hold

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// program is what servers are started from. It is held open: a server that died is replaced by the same program, also when another one lies
// at its path by then, and no path has to be walked while a mount on the way may have no server.
type program struct {
	path string // for people, and the server's argv[0]
	file *os.File
}

// openProgram finds a program by its path.
func openProgram(path string) (*program, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the program %s: %w", path, err)
	}
	return &program{path: path, file: os.NewFile(uintptr(fd), path)}, nil
}

// link is a path that means the held file, for this process's children too: their own descriptors are laid out anew before they execute it.
func (p *program) link() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.file.Fd()) }

// nameProcess gives a server the name of its program: the kernel has made one of the last part of link.
func nameProcess() {
	const most = 15 // TASK_COMM_LEN without the zero byte
	name := filepath.Base(os.Args[0])
	// Fails on no kernel that has /proc, and is for ps only.
	os.WriteFile("/proc/self/comm", []byte(name[:min(len(name), most)]), 0)
}

// Restart tells a server of the polite restart that it came by.
type Restart struct {
	Program string `json:"program"`         // that was to be started
	Error   string `json:"error,omitempty"` // why it doesn't serve, and the former program does
	Paused  int64  `json:"paused"`          // when the former server stopped reading requests, in nanoseconds since 1970
}

// restartPolitely ends a server and has next started in its place; nil: the program of the server.
func (h *holder) restartPolitely(c *child, next *program) {
	if next == nil {
		next = c.program
	}
	h.setNext(next)
	h.last = &Restart{Program: next.path}
	if h.cfg.OnRestart != nil {
		h.cfg.OnRestart()
	}
	h.stop(c)
}

// found is the result of a look for a program.
type found struct {
	program *program
	err     error
}

// findProgram looks for the program that lies where the running server's did, beside the main loop: the path may lead through the mount.
func (h *holder) findProgram(c *child) {
	if h.finding != nil {
		return
	}
	result := make(chan found, 1)
	h.finding = result
	path := c.program.path
	go func() {
		p, err := openProgram(path)
		if err == nil {
			if err = h.notBehindMount(p); err != nil {
				p.file.Close()
			}
		}
		result <- found{p, err}
	}()
}

// restartFound starts the program that was found. Without one the server goes on.
func (h *holder) restartFound(c *child, f found) {
	h.finding = nil
	if f.err != nil {
		h.log.Error("the server is not restarted", "err", f.err)
		return
	}
	h.restartPolitely(c, f.program)
}

// restartAsked does what a server asks for: the program came as a descriptor.
func (h *holder) restartAsked(c *child, m message) {
	if m.file == nil {
		h.restartPolitely(c, nil)
		return
	}
	h.restartPolitely(c, &program{path: m.Path, file: m.file})
}

// notBehindMount refuses a program that could not be read while there is no server.
func (h *holder) notBehindMount(p *program) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(p.file.Fd()), &st); err != nil {
		return fmt.Errorf("look at the program %s: %w", p.path, err)
	}
	if unix.Major(st.Dev) == h.at.Major && unix.Minor(st.Dev) == h.at.Minor {
		return fmt.Errorf("the program %s lies in the volume, and could not be read while the volume has no server: install it elsewhere", p.path)
	}
	return nil
}

// notePause keeps when requests began to wait, once a restart.
func (h *holder) notePause() {
	if h.last != nil && h.last.Paused == 0 {
		h.last.Paused = time.Now().UnixNano()
	}
}

// setNext replaces the program of the next server.
func (h *holder) setNext(p *program) {
	if old := h.next; old != p && old != h.program && old != nil {
		old.file.Close()
	}
	h.next = p
}

// judge decides, after the end of a server, which program comes next. A program is on trial until one of its servers has served for a
// moment; if it doesn't come so far, the program before it goes on, as if nobody had asked for another.
func (h *holder) judge(c *child) {
	switch {
	case c.program == h.program:
	case c.proven():
		h.program.file.Close()
		h.program = c.program
	default:
		h.log.Error("the new program does not serve, starting the one before it again", "program", c.program.path, "why", c.failure(), "again", h.program.path)
		if h.last != nil {
			h.last.Error = c.failure().Error()
		}
		c.program.file.Close()
		c.failed = true
	}
	switch {
	case c.polite:
		h.notePause() // at the latest
	case c.proven():
		h.last = nil // of a restart that is history
	}
}
