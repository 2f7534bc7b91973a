package priority

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is also a process without the right to be urgent.
func TestMain(m *testing.M) {
	if os.Getenv("PRIORITY_WITHOUT_RIGHT") == "" {
		os.Exit(m.Run())
	}
	end, err := Urgent(time.Hour)
	end()
	fmt.Println(errors.Is(err, unix.EPERM), exec.Command("true").Run())
}

// TestUrgentWithoutTheRight: nothing is changed, and others can be started.
func TestUrgentWithoutTheRight(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	cmd := exec.Command("/proc/self/exe") // its directory may be closed to others
	cmd.Env = append(os.Environ(), "PRIORITY_WITHOUT_RIGHT=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "true <nil>\n" {
		t.Errorf("%s, %v", out, err)
	}
}

// policies gives the policies and nice values that this process's threads have.
func policies(t *testing.T) map[[2]int]bool {
	t.Helper()
	all := make(map[[2]int]bool)
	err := allThreads(func(tid int) (bool, error) {
		a, err := unix.SchedGetAttr(tid, 0)
		if err == nil {
			all[[2]int{int(a.Policy), int(a.Nice)}] = true
		}
		return false, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// usual undoes Raise.
func usual() {
	_ = allThreads(func(tid int) (bool, error) { return false, unix.Setpriority(unix.PRIO_PROCESS, tid, 0) })
}

func is(all map[[2]int]bool, policy, nice int) bool {
	return len(all) == 1 && all[[2]int{policy, nice}]
}

func mustUrgent(t *testing.T, bound time.Duration) func() {
	t.Helper()
	end, err := Urgent(bound)
	if err != nil {
		t.Skipf("needs the right to be urgent: %v", err)
	}
	return end
}

// TestUrgent: all threads are urgent until the last that needs it has ended, and have the nice value of before then.
func TestUrgent(t *testing.T) {
	if err := Raise(); err != nil {
		t.Skipf("needs the right to raise priorities: %v", err)
	}
	defer usual()
	for range 50 {
		first := mustUrgent(t, time.Hour)
		second := mustUrgent(t, time.Hour)
		stop := make(chan struct{})
		for range 8 { // threads that are made now are urgent too
			go func() { unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil); <-stop }()
		}
		first()
		first()
		if got := policies(t); !is(got, unix.SCHED_RR, 0) {
			t.Fatalf("while it is urgent: %v", got)
		}
		second()
		close(stop)
		if got := policies(t); !is(got, unix.SCHED_NORMAL, High) {
			t.Fatalf("afterwards: %v", got)
		}
	}
}

// TestUrgentAlways: what was started with a real-time policy keeps it.
func TestUrgentAlways(t *testing.T) {
	mustUrgent(t, time.Hour)()
	set := func(a unix.SchedAttr) {
		if err := allThreads(func(tid int) (bool, error) { return false, unix.SchedSetAttr(tid, &a, 0) }); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 2})
	defer set(unix.SchedAttr{Policy: unix.SCHED_NORMAL})
	mustUrgent(t, time.Hour)()
	if got := policies(t); !is(got, unix.SCHED_FIFO, 0) {
		t.Errorf("%v", got)
	}
}

// TestUrgentEndsByItself: whoever was to end it may hang.
func TestUrgentEndsByItself(t *testing.T) {
	end := mustUrgent(t, 10*time.Millisecond)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if got := policies(t); len(got) == 1 && !got[[2]int{unix.SCHED_RR, 0}] {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("it is still urgent: %v", got)
		}
	}
	end()
	if urgent.count != 0 {
		t.Errorf("%d need it", urgent.count)
	}
}

// TestNothingIsStartedWhileUrgent: a process that is started has the usual policy, as it is started afterwards.
func TestNothingIsStartedWhileUrgent(t *testing.T) {
	end := mustUrgent(t, time.Hour)
	mark := filepath.Join(t.TempDir(), "mark")
	out := make(chan string)
	go func() {
		p, err := exec.Command("sh", "-c", "touch "+mark+"; cat /proc/self/sched").CombinedOutput()
		if err != nil {
			p = []byte(err.Error())
		}
		out <- string(p)
	}()
	select {
	case got := <-out:
		t.Errorf("it was started: %s", got)
	case <-time.After(50 * time.Millisecond):
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("it was started while this process is urgent")
	}
	end()
	for line := range strings.Lines(<-out) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "policy" && f[2] != "0" {
			t.Error(line)
		}
	}
}
