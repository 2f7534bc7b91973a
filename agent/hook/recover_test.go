package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/agent/config"
)

// dyingAgent runs the hooks of a file, and waits to be killed.
func dyingAgent(dir string) {
	raw, err := os.ReadFile(filepath.Join(dir, "hooks"))
	if err != nil {
		panic(err)
	}
	a := Around{Volume: "graph", Mount: "/mnt/graph", Snapshot: "monday", Dir: filepath.Join(dir, "begun"), Log: slog.New(slog.DiscardHandler)}
	if err := json.Unmarshal(raw, &a.Hooks); err != nil {
		panic(err)
	}
	b, err := Pre(context.Background(), a)
	if err != nil {
		panic(err)
	}
	os.WriteFile(filepath.Join(dir, "between"), []byte("1\n"), 0o600)
	if len(a.Hooks.Pre) == 0 {
		b.Post(context.Background(), Taken)
	}
	select {}
}

// die runs an agent until a file is there, and kills it.
func die(t *testing.T, work string, a Around, until string) {
	t.Helper()
	raw, err := json.Marshal(a.Hooks)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "hooks"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GRAPHVOL_TEST_AGENT="+work)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pidIn(t, filepath.Join(work, until))
	cmd.Process.Kill()
	cmd.Wait()
}

func TestRecover(t *testing.T) {
	a, work := around(t, []config.Hook{sh("ls W/begun | grep -c json$ >> W/log")}, []config.Hook{
		sh("echo $GRAPHVOL_RESULT:$GRAPHVOL_VOLUME:$GRAPHVOL_MOUNT:$GRAPHVOL_SNAPSHOT >> W/log; exit 1"), within(100*time.Millisecond, sh("exec sleep 60")), sh("echo 2 >> W/log"),
	})
	die(t, work, a, "between")
	wantLog(t, work, "1\n") // it was remembered before the first hook
	err := Recover(t.Context(), a.Dir, a.Log)
	if err == nil || !strings.Contains(err.Error(), "exit code 1") || !strings.Contains(err.Error(), "time-out of 100ms") {
		t.Errorf("%v", err)
	}
	wantLog(t, work, "1\nunknown:graph:/mnt/graph:monday\n2\n")
	wantNothingBegun(t, a)
	if err := Recover(t.Context(), a.Dir, a.Log); err != nil {
		t.Error(err)
	}
	wantLog(t, work, "1\nunknown:graph:/mnt/graph:monday\n2\n")
}

// A pre hook that outlives the agent would bring the database to rest after the post hooks.
func TestRecoverEndsFormer(t *testing.T) {
	const quiesce = "sleep 1000 & echo $! > W/child; echo $$ > W/pid; wait; echo quiesced >> W/log; sleep 1000"
	for name, c := range map[string]struct{ script, log string }{
		"sleeps":               {quiesce, ""},
		"ignores SIGTERM":      {"trap '' TERM; " + quiesce, ""},
		"its child ignores it": {"(trap '' TERM; exec sleep 1000) & echo $! > W/child; echo $$ > W/pid; exec sleep 1000", ""},
		"another environment":  {"exec env -i /bin/sh -c '" + quiesce + "'", ""},
		"its child tidies up":  {"(trap 'sleep 0.2 && echo tidied >> W/log; exit' TERM; echo $$ > W/pid; sleep 1000 & wait) & echo $! > W/child; trap 'wait; exit' TERM; wait; wait", "tidied\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, work := around(t, []config.Hook{sh(c.script)}, []config.Hook{sh("kill -0 $(cat W/pid) 2>/dev/null && grep -q 'State:.[^Z]' /proc/$(cat W/pid)/status && echo alive >> W/log; echo post >> W/log")})
			die(t, work, a, "pid")
			pid, child := pidIn(t, filepath.Join(work, "pid")), pidIn(t, filepath.Join(work, "child"))
			if !alive(pid) {
				t.Fatal("the hook has died with the agent, so there is nothing to test")
			}
			if err := Recover(t.Context(), a.Dir, a.Log); err != nil {
				t.Error(err)
			}
			wantDead(t, pid)
			wantDead(t, child)
			wantLog(t, work, c.log+"post\n")
			wantNothingBegun(t, a)
		})
	}
}

// In a container without an init process, what has ended stays for ever.
func TestEndedStays(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	self, err := inspect(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := (former{word: "word", session: self.session, group: cmd.Process.Pid}).end(); err != nil {
		t.Error(err)
	}
	if alive(cmd.Process.Pid) {
		t.Error("it lives")
	}
}

// A post hook may have started the database; it goes on while the hooks are run again.
func TestRecoverSparesPost(t *testing.T) {
	a, work := around(t, nil, []config.Hook{sh("echo post >> W/log; [ $GRAPHVOL_RESULT = unknown ] && exit; echo $$ > W/pid; exec sleep 60")})
	die(t, work, a, "pid")
	if err := Recover(t.Context(), a.Dir, a.Log); err != nil {
		t.Error(err)
	}
	pid := pidIn(t, filepath.Join(work, "pid"))
	if !alive(pid) {
		t.Error("a post hook was ended")
	}
	unix.Kill(pid, unix.SIGKILL)
	wantLog(t, work, "post\npost\n")
	wantNothingBegun(t, a)
}

// The number of a hook's process may be another's by now.
func TestRecoverSparesOthers(t *testing.T) {
	a, work := around(t, nil, []config.Hook{sh("echo post >> W/log")})
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	m, err := remember(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.begins("word"), m.runs(other.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(read(t, m.runningPath()))
	f[3] = "1" + f[3] // it was started later
	if err := os.WriteFile(m.runningPath(), []byte(strings.Join(f, " ")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Recover(t.Context(), a.Dir, a.Log); err != nil {
		t.Error(err)
	}
	if !alive(other.Process.Pid) {
		t.Error("a process of somebody else was ended")
	}
	wantLog(t, work, "post\n")
	wantNothingBegun(t, a)
}

// The agent may die before it knows the process of the hook that it starts.
func TestRecoverUnknown(t *testing.T) {
	a, work := around(t, nil, []config.Hook{sh("echo post >> W/log")})
	m, err := remember(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.begins("word"); err != nil {
		t.Fatal(err)
	}
	pids := make(map[string]int)
	for name, c := range map[string]struct {
		word    string
		session bool
	}{"the hook": {"word", false}, "another hook": {"another", false}, "a database": {"word", true}} {
		cmd := exec.Command("sleep", "60")
		cmd.Env = []string{wordName + "=" + c.word}
		cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: !c.session, Setsid: c.session}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		pids[name] = cmd.Process.Pid
	}
	if err := Recover(t.Context(), a.Dir, a.Log); err != nil {
		t.Error(err)
	}
	for name, pid := range pids {
		if alive(pid) != (name != "the hook") {
			t.Errorf("%s lives: %v", name, alive(pid))
		}
	}
	wantLog(t, work, "post\n")
	wantNothingBegun(t, a)
}

func TestRecoverUnreadable(t *testing.T) {
	a, work := around(t, nil, []config.Hook{sh("echo post >> W/log")})
	if err := Recover(t.Context(), a.Dir, a.Log); err != nil {
		t.Errorf("a directory that isn't there: %v", err)
	}
	if _, err := remember(a); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"begun-0.json": "{", "begun-1.json": `{"version":2,"post":[]}`, "begun-2.json": `{"version":1,"post":[{}]}`, "begun-x.json.tmp": "", "unrelated": "",
	} {
		if err := os.WriteFile(filepath.Join(a.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := Recover(t.Context(), a.Dir, a.Log)
	for _, want := range []string{"remove " + a.Dir + "/begun-0.json", "it has version 2", "hook without command"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	wantLog(t, work, "post\n") // in spite of the others
	var left []string
	entries, _ := os.ReadDir(a.Dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); got != "begun-0.json begun-1.json begun-2.json unrelated" {
		t.Errorf("left: %s", got)
	}
}

func TestNotRemembered(t *testing.T) {
	a, work := around(t, []config.Hook{sh("echo pre >> W/log")}, []config.Hook{sh("echo post >> W/log")})
	if err := os.WriteFile(a.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Pre(t.Context(), a); err == nil || !strings.Contains(err.Error(), "no hook of graph was run") {
		t.Errorf("%v", err)
	}
	wantLog(t, work, "")
}

func TestLog(t *testing.T) {
	a, _ := around(t, []config.Hook{sh("echo resting"), sh("echo no; exit 1")}, nil)
	var b bytes.Buffer
	a.Log = slog.New(slog.NewJSONHandler(&b, nil))
	Pre(t.Context(), a)
	for _, want := range []string{`"msg":"a hook has run","hook":"/bin/sh -c echo resting","phase":"pre","volume":"graph","snapshot":"monday"`, `"output":["resting"]`, `"level":"ERROR"`, `"output":["no"]`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, &b)
		}
	}
}
