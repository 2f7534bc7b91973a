package hook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"graphvol/agent/config"
)

// TestMain makes the test binary an agent that dies, when a test has started it as that.
func TestMain(m *testing.M) {
	if dir := os.Getenv("GRAPHVOL_TEST_AGENT"); dir != "" {
		dyingAgent(dir)
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a busy machine is waited for.
const patience = time.Minute

// sh is a hook that a shell runs.
func sh(script string) config.Hook { return config.Hook{Command: []string{"/bin/sh", "-c", script}} }

func within(d time.Duration, h config.Hook) config.Hook {
	h.Timeout = d
	return h
}

// around makes hooks that write what they do into the file log in their directory, W.
func around(t *testing.T, preHooks, postHooks []config.Hook) (a Around, work string) {
	t.Helper()
	work = t.TempDir()
	for _, list := range [][]config.Hook{preHooks, postHooks} {
		for i := range list {
			for j := range list[i].Command {
				list[i].Command[j] = strings.ReplaceAll(list[i].Command[j], "W/", work+"/")
			}
		}
	}
	return Around{
		Hooks: config.Hooks{Pre: preHooks, Post: postHooks}, Volume: "graph", Mount: "/mnt/graph", Snapshot: "monday",
		Dir: filepath.Join(work, "begun"), Log: slog.New(slog.DiscardHandler),
	}, work
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(raw)
}

func wantLog(t *testing.T, work, want string) {
	t.Helper()
	if got := read(t, filepath.Join(work, "log")); got != want {
		t.Errorf("hooks have done\n%swant\n%s", got, want)
	}
}

// wantNothingBegun: nothing is left to be recovered.
func wantNothingBegun(t *testing.T, a Around) {
	t.Helper()
	entries, err := os.ReadDir(a.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// pidIn is the process that a hook has written into a file, once it has.
func pidIn(t *testing.T, path string) int {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if line, ok := strings.CutSuffix(read(t, path), "\n"); ok {
			pid, err := strconv.Atoi(line)
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no hook has written %s", path)
	return 0
}

// alive tells whether a process runs; what has ended and waits for its parent doesn't.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func wantDead(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			unix.Kill(pid, unix.SIGKILL)
			t.Fatalf("process %d lives on", pid)
		}
	}
}

func TestAround(t *testing.T) {
	env := `echo $GRAPHVOL_PHASE:$GRAPHVOL_RESULT:$GRAPHVOL_VOLUME:$GRAPHVOL_MOUNT:$GRAPHVOL_SNAPSHOT >> W/log`
	a, work := around(t, []config.Hook{sh("echo 1 >> W/log"), sh(env)}, []config.Hook{sh(env), sh("pwd >> W/log; read x || echo no input >> W/log")})
	t.Setenv("GRAPHVOL_RESULT", "somebody else's")
	b, err := Pre(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	wantLog(t, work, "1\npre::graph:/mnt/graph:monday\n")
	for range 2 { // the second is none
		if err := b.Post(t.Context(), Taken); err != nil {
			t.Fatal(err)
		}
	}
	wantLog(t, work, "1\npre::graph:/mnt/graph:monday\npost:taken:graph:/mnt/graph:monday\n/\nno input\n")
	wantNothingBegun(t, a)
}

func TestFailures(t *testing.T) {
	a, work := around(t,
		[]config.Hook{sh("echo 1 >> W/log"), sh("echo what; echo why; echo not >&2; echo here >&2; exit 3"), sh("echo 3 >> W/log")},
		[]config.Hook{sh("echo $GRAPHVOL_RESULT >> W/log; kill $$"), {Command: []string{"/nowhere/x"}}, sh("echo last >> W/log")})
	_, err := Pre(t.Context(), a)
	wantLog(t, work, "1\nfailed\nlast\n")
	wantNothingBegun(t, a)
	want := "the pre hook /bin/sh of graph has failed with exit code 3: why; not; here; the post hook /bin/sh of graph has failed: signal: terminated; " +
		"the post hook /nowhere/x of graph can't be started: no such file or directory"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want\n%s", err, want)
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v hides its cause", err)
	}
}

func TestTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		log    string
		kill   bool // only SIGKILL ends it
	}{
		"sleeps":               {script: "echo $$ > W/pid; exec sleep 60"},
		"tidies up":            {script: "trap 'echo tidied >> W/log; exit 0' TERM; sleep 60 & echo $! > W/pid; wait", log: "tidied\n"},
		"ignores SIGTERM":      {script: "trap '' TERM; sleep 60 & echo $! > W/pid; while :; do wait; sleep 1; done", kill: true},
		"its child ignores it": {script: "(trap '' TERM; exec sleep 60) & echo $! > W/pid; exec sleep 60"},
		"is stopped":           {script: "sleep 60 & echo $! > W/pid; kill -STOP $$", kill: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const timeout = 2 * time.Second // until then the script must have come to its sleep
			a, work := around(t, []config.Hook{within(timeout, sh(c.script))}, []config.Hook{sh("echo post >> W/log")})
			begun := time.Now()
			_, err := Pre(t.Context(), a)
			took := time.Since(begun)
			if err == nil || !strings.HasPrefix(err.Error(), "the pre hook /bin/sh of graph was ended after its time-out of 2s: give it a longer one") {
				t.Errorf("%v", err)
			}
			if took > patience || c.kill && took < timeout+grace {
				t.Errorf("took %v", took)
			}
			wantDead(t, pidIn(t, filepath.Join(work, "pid")))
			wantLog(t, work, c.log+"post\n")
			wantNothingBegun(t, a)
		})
	}
}

func TestPostTimeout(t *testing.T) {
	a, work := around(t, nil, []config.Hook{within(100*time.Millisecond, sh("exec sleep 60")), sh("echo next >> W/log")})
	b, err := Pre(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Post(t.Context(), Taken); err == nil || !strings.Contains(err.Error(), "the post hook /bin/sh of graph was ended after its time-out of 100ms") {
		t.Errorf("%v", err)
	}
	wantLog(t, work, "next\n")
}

func TestChildrenLiveOn(t *testing.T) {
	a, work := around(t, []config.Hook{sh("sleep 60 & echo $! > W/pid; echo started")}, nil)
	begun := time.Now()
	if _, err := Pre(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("took %v", took)
	}
	pid := pidIn(t, filepath.Join(work, "pid"))
	if !alive(pid) {
		t.Error("what a hook has started was ended")
	}
	unix.Kill(pid, unix.SIGKILL)
	if _, err := os.Stat(a.Dir); err == nil {
		t.Error("something is remembered though there is nothing to be run")
	}
}

func TestCancelled(t *testing.T) {
	a, work := around(t, []config.Hook{sh("echo $$ > W/pid; exec sleep 60"), sh("echo 2 >> W/log")}, []config.Hook{sh("sleep 0.2; echo post >> W/log")})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the coordinator is gone")
	go func() {
		pidIn(t, filepath.Join(work, "pid"))
		cancel(why)
	}()
	if _, err := Pre(ctx, a); !errors.Is(err, why) || !strings.Contains(err.Error(), "was ended: the coordinator is gone") {
		t.Errorf("%v", err)
	}
	wantDead(t, pidIn(t, filepath.Join(work, "pid")))
	wantLog(t, work, "post\n")
	// Cancelled between the two, and before.
	a.Hooks.Pre = nil
	ctx, cancel = context.WithCancelCause(t.Context())
	b, err := Pre(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	cancel(why)
	if err := b.Post(ctx, Failed); err != nil {
		t.Error(err)
	}
	wantLog(t, work, "post\npost\n")
	if _, err := Pre(ctx, a); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	wantLog(t, work, "post\npost\n")
}

func TestHugeOutput(t *testing.T) {
	a, _ := around(t, nil, nil)
	b := &Begun{around: a}
	out, err := b.command(t.Context(), sh("yes | head -c 100000000; printf 'the \\033[1mlast\\n\\n'").Command, nil, pre)
	if err != nil {
		t.Fatal(err)
	}
	if n := cap(out.mu.buf); n > 8*tailBytes {
		t.Errorf("keeps %d bytes", n)
	}
	if got := out.lines(2); len(got) != 2 || got[0] != "y" || got[1] != `"the \x1b[1mlast"` {
		t.Errorf("the last lines: %q", got)
	}
	long := new(tail)
	long.Write([]byte(strings.Repeat("ä", tailBytes)))
	if got := long.lines(3); len(got) != 1 || len(got[0]) > lineBytes+4 || !strings.HasSuffix(got[0], "ää…") {
		t.Errorf("a long line: %q", got)
	}
}
