package hold

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const testHang = 1200 * time.Millisecond

func TestHangVerdict(t *testing.T) {
	const limit = 6
	for _, c := range []struct {
		name string
		v    vitals
		want string
	}{
		{"well", vitals{answered: true}, ""},
		{"slow answer", vitals{answered: true, silent: limit - 1}, ""},
		{"stopped", vitals{answered: true, silent: limit}, "process"},
		{"stopped before its first answer", vitals{serving: limit, silent: limit}, "process"},
		{"begins", vitals{silent: limit, starting: limit}, ""},
		{"stuck", vitals{answered: true, stuck: limit}, "requests"},
		{"opening takes long", vitals{answered: true, starting: 100 * limit}, ""},
		{"no sign of life", vitals{starting: 2 * limit}, "begin"},
		{"a new program opens", vitals{answered: true, trial: true, starting: 2*limit - 1}, ""},
		{"a new program opens too long", vitals{answered: true, trial: true, starting: 2 * limit}, "begin"},
	} {
		if got := c.v.hang(limit); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// A stopped server answers nothing. Its stacks are written before it is replaced, and the writer only waits.
func TestStoppedServerIsReplaced(t *testing.T) {
	r := newRig(t, func(c *testConf) { c.HangTimeout = testHang })
	w := startWriter(r.conf.Mount)
	eventually(t, "writes", func() bool { return w.count.Load() > 20 })
	old := r.info().Server
	if err := old.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.waitReady()
	if old.Alive() {
		t.Error("the stopped server lives")
	}
	n := w.count.Load()
	eventually(t, "writes go on", func() bool { return w.count.Load() > n+20 })
	close(w.quit)
	<-w.done
	if w.err != nil {
		t.Fatalf("the writer saw: %v", w.err)
	}
	if w.worst < testHang {
		t.Errorf("longest wait %v, less than the bound of %v", w.worst, testHang)
	}
	t.Logf("longest wait %v", w.worst.Round(time.Millisecond))
	w.check(t, filepath.Join(r.conf.Backing, "data"))
	if log := r.log(); !strings.Contains(log, "goroutine ") || !strings.Contains(log, "process does not answer") {
		t.Errorf("no reason or no stacks in the log:\n%s", log)
	}
}

// A server whose process is well and which answers no requests.
func TestStuckServerIsReplaced(t *testing.T) {
	r := newRig(t, func(c *testConf) { c.HangTimeout, c.Stuck = testHang, true })
	old := r.info().Server
	r.waitReady()
	if old.Alive() || !strings.Contains(r.log(), "requests of the mount are not answered") {
		t.Errorf("alive: %v\n%s", old.Alive(), r.log())
	}
	if err := os.WriteFile(filepath.Join(r.conf.Mount, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Requests that take longer than the bound are no hang.
func TestSlowServerIsLeftAlone(t *testing.T) {
	r := newRig(t, func(c *testConf) { c.HangTimeout, c.Slow = testHang, 3*testHang })
	old := r.info().Server
	f, err := os.Create(filepath.Join(r.conf.Mount, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if now := r.info(); now.Server != old || now.Restarts != 0 {
		t.Errorf("the server was replaced:\n%s", r.log())
	}
}

func TestWatchPlan(t *testing.T) {
	for _, c := range []struct{ timeout, alive, every time.Duration }{
		{30 * time.Second, 0, 5 * time.Second},
		{30 * time.Second, time.Minute, 5 * time.Second},
		{30 * time.Second, 2 * time.Second, 2 * time.Second},
		{0, 0, trialTimeout / watchTicks},
	} {
		h := &holder{cfg: Config{HangTimeout: c.timeout, AliveEvery: c.alive}}
		every, limit := h.watchPlan()
		if every != c.every || time.Duration(limit)*every < c.timeout {
			t.Errorf("%v, %v: %d ticks of %v", c.timeout, c.alive, limit, every)
		}
	}
}
