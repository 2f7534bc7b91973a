package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sh(script string, args ...string) []string {
	return append([]string{"/bin/sh", "-c", script, "sh"}, args...)
}

func TestOutput(t *testing.T) {
	out, err := Output(t.Context(), sh(`pwd; cat; echo "$1"; echo careful >&2`, "a  b"), time.Minute, 100)
	if err != nil || string(out) != "/\na  b\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestOutputFails(t *testing.T) {
	for name, c := range map[string]struct {
		argv []string
		want string
	}{
		"exit status":      {sh("echo first >&2; printf 'it is \\033[31m broken\\n\\n' >&2; exit 3"), "/bin/sh failed: exit status 3: it is  [31m broken"},
		"silent":           {sh("exit 3"), "/bin/sh failed: exit status 3"},
		"killed":           {sh("kill -9 $$"), "/bin/sh failed: signal: killed"},
		"much on stderr":   {sh("yes | head -100000 >&2; echo end >&2; exit 1"), "/bin/sh failed: exit status 1: end"},
		"not there":        {[]string{"/nowhere"}, "/nowhere can't be started: no such file or directory"},
		"not a program":    {[]string{"/"}, `/ can't be started: exec: "/": is a directory`},
		"too much":         {sh("yes"), "/bin/sh prints more than 100 bytes, and was killed"},
		"a byte too much":  {sh("printf %0101d 0"), "/bin/sh prints more than 100 bytes, and was killed"},
		"output held open": {sh("setsid sleep 3 & exec sleep 0.1"), "/bin/sh has ended, but something that it has started holds its output open"},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := Output(t.Context(), c.argv, time.Minute, 100); err == nil || err.Error() != c.want {
				t.Errorf("%q, %v, want %s", out, err, c.want)
			}
		})
	}
}

// TestTimeoutKillsAll has a program that ignores signals, with a child.
func TestTimeoutKillsAll(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	script := `trap "" TERM INT HUP; echo ready >&2; sleep 1000 & echo $! $$ > "$1"; wait; sleep 1000`
	begin := time.Now()
	_, err := Output(t.Context(), sh(script, pids), time.Second, 100)
	if want := "/bin/sh did not end within 1s, and was killed: ready"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if took := time.Since(begin); took > 100*time.Second {
		t.Errorf("took %s", took)
	}
	gone(t, pids)
}

// TestNothingIsLeft has a program that ends and leaves a child, which holds no pipe.
func TestNothingIsLeft(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	out, err := Output(t.Context(), sh(`sleep 1000 >/dev/null 2>&1 & echo $! > "$1"; echo done`, pids), time.Minute, 100)
	if err != nil || string(out) != "done\n" {
		t.Errorf("%q, %v", out, err)
	}
	gone(t, pids)
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := Output(ctx, sh("sleep 1000"), time.Hour, 100); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
}

// gone fails if a process whose number is in the file lives on. Orphans are reaped by somebody else, so that may take a moment.
func gone(t *testing.T, pids string) {
	t.Helper()
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(text)) {
		var pid int
		if _, err := fmt.Sscan(field, &pid); err != nil {
			t.Fatal(err)
		}
		end := time.Now().Add(10 * time.Second)
		for lives(pid) {
			if time.Now().After(end) {
				t.Fatalf("process %d lives on", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// lives tells whether a process runs; one that has ended and isn't reaped doesn't.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return unix.Kill(pid, 0) == nil
	}
	return !strings.Contains(string(stat), ") Z ")
}
