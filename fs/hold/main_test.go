package hold

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"graphvol/internal/fusedev"
)

// The test binary is also the holder and the server: what it is to be stands in the environment.
const (
	envRole = "HOLD_TEST_ROLE"
	envConf = "HOLD_TEST_CONF"
)

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "holder":
		os.Exit(holderMain())
	case "server":
		os.Exit(serverMain())
	}
	goleak.VerifyTestMain(m)
}

// testConf is what a test tells its holder and server.
type testConf struct {
	Backing, Mount, Info string
	QuickDeaths          int
	NoResend, Helper     bool
	OpenSelf             bool   // the server keeps a file of its own mount open
	Next                 string // the program that SIGUSR1 to the server asks for
	Crash                string // the server's program: "", "early" (dies before it serves), "after" (dies as soon as a successor serves)

	Program     string // of the server; empty: this one
	HangTimeout time.Duration
	Stuck       bool          // the first server answers nothing that the holder asks through the mount
	Slow        time.Duration // each sync takes so long
}

func holderMain() int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var c testConf
	if err := json.Unmarshal([]byte(os.Getenv(envConf)), &c); err != nil {
		log.Error(err.Error())
		return 1
	}
	env := append(os.Environ(), envRole+"=server")
	err := Run(context.Background(), Config{Backing: c.Backing, Mount: c.Mount, Info: c.Info, Argv: []string{cmp.Or(c.Program, "/proc/self/exe")}, Env: env, AllowOther: true,
		Log: log, Stdout: os.Stderr, QuickDeaths: c.QuickDeaths, HangTimeout: c.HangTimeout, noResend: c.NoResend, helper: c.Helper, OnReady: func(pid int) { fmt.Println("ready", pid) }})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	return 0
}

func serverMain() int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := Attach(log)
	if err != nil {
		log.Error(err.Error())
		return 1
	}
	var c testConf
	json.Unmarshal([]byte(os.Getenv(envConf)), &c)
	if c.Crash == "early" {
		s.Fail(errors.New("the state is broken"))
		return 1
	}
	if c.Crash == "after" && s.Takeover() {
		return 3
	}
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, syscall.SIGTERM, syscall.SIGUSR1)
	go askHolder(s, sigs, c.Next)
	if c.OpenSelf && !s.Takeover() {
		go WithOwnFiles(func() error { return openSelf(filepath.Join(c.Mount, "self")) })
	}
	flat := newFlatFS(s)
	flat.slow, flat.stuck = c.Slow, c.Stuck && !s.Takeover()
	err = s.Serve(flat, &fuse.MountOptions{MaxWrite: 1 << 20, ExtraCapabilities: fuse.CAP_WRITEBACK_CACHE, DirectMount: true})
	if errors.Is(err, ErrRestart) {
		return 7
	}
	if err != nil {
		log.Error(err.Error())
		return 1
	}
	return 0
}

// openSelf has a dirty file of the server's own mount open, for ever.
func openSelf(path string) error {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	runtime.GC() // polls on this thread
	fmt.Fprintln(os.Stderr, "opened own file", err)
	select {}
}

// askHolder does what an agent would do: SIGTERM unmounts, and an upgrade is asked for.
func askHolder(s *Session, sigs <-chan os.Signal, next string) {
	for sig := range sigs {
		if sig == syscall.SIGTERM {
			s.Unmount()
		} else {
			restartWith(s, next)
		}
	}
}

func restartWith(s *Session, path string) {
	if path == "" {
		s.Restart("", nil)
		return
	}
	p, err := openProgram(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer p.file.Close()
	s.Restart(p.path, p.file)
}

// rig is a mounted flatFS with its processes.
type rig struct {
	t     *testing.T
	conf  testConf
	cmd   *exec.Cmd
	lines chan string   // the holder's standard output
	done  chan struct{} // closed when the holder has ended

	logPath string
}

func requireFuse(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(fusedev.Path); err != nil {
		t.Skip("no /dev/fuse")
	}
	if os.Geteuid() != 0 {
		if _, err := fusedev.Helper(); err != nil {
			t.Skip(err)
		}
	}
}

// newRig starts a holder and waits until it is ready.
func newRig(t *testing.T, change func(*testConf)) *rig {
	t.Helper()
	r := startRig(t, change)
	r.waitReady()
	return r
}

func startRig(t *testing.T, change func(*testConf)) *rig {
	t.Helper()
	requireFuse(t)
	dir := t.TempDir()
	r := &rig{t: t, logPath: filepath.Join(dir, "log"), lines: make(chan string, 64), done: make(chan struct{})}
	r.conf = testConf{Backing: filepath.Join(dir, "back"), Mount: filepath.Join(dir, "mnt"), Info: filepath.Join(dir, InfoFile)}
	if change != nil {
		change(&r.conf)
	}
	for _, d := range []string{r.conf.Backing, r.conf.Mount} {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	if filepath.Dir(r.conf.Program) == r.conf.Backing {
		copySelf(t, r.conf.Program)
	}
	conf, _ := json.Marshal(r.conf)
	r.cmd = exec.Command("/proc/self/exe")
	r.cmd.Env = append(os.Environ(), envRole+"=holder", envConf+"="+string(conf))
	// The race detector would let each of them sleep for a second before it exits.
	r.cmd.Env = append(r.cmd.Env, "GORACE=atexit_sleep_ms=0")
	logFile, err := os.Create(r.logPath)
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	r.cmd.Stderr = logFile
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			r.lines <- sc.Text()
		}
		r.cmd.Wait()
		close(r.lines)
		close(r.done)
	}()
	t.Cleanup(r.cleanup)
	return r
}

func (r *rig) log() string {
	b, _ := os.ReadFile(r.logPath)
	return string(b)
}

func (r *rig) waitReady() {
	r.t.Helper()
	if line := r.line(); !strings.HasPrefix(line, "ready") {
		r.t.Fatalf("holder: %s\n%s", line, r.log())
	}
}

func (r *rig) line() string {
	r.t.Helper()
	select {
	case l := <-r.lines:
		return l
	case <-time.After(10 * time.Second):
		r.t.Fatalf("the holder says nothing:\n%s", r.log())
	}
	return ""
}

func (r *rig) info() Info {
	r.t.Helper()
	in, err := ReadInfo(r.conf.Info)
	if err != nil {
		r.t.Fatal(err)
	}
	return in
}

// kill ends the server and waits for its successor.
func (r *rig) kill() {
	r.t.Helper()
	if err := r.info().Server.Signal(syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	r.waitReady()
}

// eventually waits for a condition that another process brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

func (r *rig) waitEnd() {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(10 * time.Second):
		r.t.Fatalf("the holder doesn't end:\n%s", r.log())
	}
}

func (r *rig) cleanup() {
	if m, ok, err := MountAt(r.conf.Mount); err == nil && ok && m.FSType == FSType {
		detach(m.Point)
	}
	select {
	case <-r.done:
	case <-time.After(5 * time.Second):
		r.t.Errorf("left over: holder %d\n%s", r.cmd.Process.Pid, r.log())
		if in, err := ReadInfo(r.conf.Info); err == nil {
			in.Server.Signal(syscall.SIGKILL)
		}
		r.cmd.Process.Kill()
	}
	if r.t.Failed() {
		r.t.Log(r.log())
	}
}
