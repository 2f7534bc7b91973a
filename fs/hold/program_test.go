package hold

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// exe is the file that a server runs, as the kernel names it.
func (r *rig) exe() string {
	r.t.Helper()
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.info().Server.PID))
	if err != nil {
		r.t.Fatal(err)
	}
	return path
}

func copySelf(t *testing.T, to string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(to+".new", self, 0o700)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A program that doesn't come so far as to serve costs a pause, nothing else.
func TestBrokenProgramFallsBack(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		mode   os.FileMode
		why    string
	}{
		"exits":          {"#!/bin/sh\nexit 3\n", 0o700, "exit status 3"},
		"hangs":          {"#!/bin/sh\nexec sleep 600\n", 0o700, "does not begin to serve"},
		"no program":     {"\x00\x01\x02", 0o700, "exec format error"},
		"not executable": {"#!/bin/sh\n", 0o600, "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			next := filepath.Join(t.TempDir(), "next")
			if err := os.WriteFile(next, []byte(c.script), c.mode); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, func(c *testConf) { c.Next, c.HangTimeout = next, testHang })
			w := startWriter(r.conf.Mount)
			eventually(t, "writes", func() bool { return w.count.Load() > 20 })
			before := r.exe()
			if err := r.info().Server.Signal(syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			r.waitReady()
			if now := r.exe(); now != before {
				t.Errorf("%s serves, not %s", now, before)
			}
			n := w.count.Load()
			eventually(t, "writes go on", func() bool { return w.count.Load() > n+20 })
			// The same program comes back after a death too.
			time.Sleep(quickDeath)
			r.kill()
			close(w.quit)
			<-w.done
			if w.err != nil {
				t.Fatalf("the writer saw: %v", w.err)
			}
			if log := r.log(); !strings.Contains(log, "the new program does not serve") || !strings.Contains(log, c.why) {
				t.Errorf("the log lacks the reason %q:\n%s", c.why, log)
			}
			w.check(t, filepath.Join(r.conf.Backing, "data"))
		})
	}
}

// What is installed over a running program is started when somebody asks for it, not by a death.
func TestReplacedProgram(t *testing.T) {
	prog := filepath.Join(t.TempDir(), "prog")
	copySelf(t, prog)
	r := newRig(t, func(c *testConf) { c.Program = prog })
	copySelf(t, prog)
	time.Sleep(quickDeath)
	r.kill()
	if exe := r.exe(); exe != prog+" (deleted)" {
		t.Errorf("after a death %s serves", exe)
	}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", r.info().Server.PID)); err != nil || string(comm) != "prog\n" {
		t.Errorf("the process is called %q, %v", comm, err)
	}
	if err := r.info().Upgrade(); err != nil {
		t.Fatal(err)
	}
	r.waitReady()
	if exe := r.exe(); exe != prog {
		t.Errorf("after SIGUSR2 %s serves", exe)
	}
	if err := os.Remove(prog); err != nil {
		t.Fatal(err)
	}
	before := r.info().Server
	if err := r.info().Upgrade(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a line in the log", func() bool { return strings.Contains(r.log(), "the server is not restarted") })
	if now := r.info().Server; now != before {
		t.Error("a program that is gone was started")
	}
}

// A program in the volume can't be read while the volume has no server.
func TestProgramBehindMount(t *testing.T) {
	r := newRig(t, func(c *testConf) { c.Program = filepath.Join(c.Backing, "prog"); c.Mount = c.Backing })
	if err := r.info().Upgrade(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a line in the log", func() bool { return strings.Contains(r.log(), "the server is not restarted") })
	time.Sleep(quickDeath)
	r.kill()
	if exe := r.exe(); exe != r.conf.Program {
		t.Errorf("%s serves", exe)
	}
}
