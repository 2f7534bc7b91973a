package priority

import (
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// urgent counts who needs this process to be urgent.
var urgent struct {
	sync.Mutex
	count int
}

// Urgent has this process run before all that aren't urgent too, until end is called, or the bound has passed: its threads have the real-time policy SCHED_RR with
// its lowest priority, as daemons of clusters have that others wait for (corosync). It is for moments, as nothing else runs on a processor that is busy with urgent
// threads, but for the twentieth that Linux keeps for the others (sched_rt_runtime_us). Calls may overlap. Meanwhile this process starts no other: it would be urgent
// too, and for ever; who wants to waits. Without the right (CAP_SYS_NICE; in a control group also a share of the real-time bandwidth where the kernel has it) the error
// is EPERM, and nothing is changed. end may be called more than once, and is never nil. Safe for concurrent use.
func Urgent(bound time.Duration) (end func(), err error) {
	urgent.Lock()
	defer urgent.Unlock()
	if urgent.count == 0 {
		if a, err := unix.SchedGetAttr(os.Getpid(), 0); err != nil || a.Policy == unix.SCHED_RR || a.Policy == unix.SCHED_FIFO {
			return func() {}, err // whoever has started it wants it so, always
		}
		syscall.ForkLock.RLock()
		if err := allThreads(realTime); err != nil {
			becomeUsual()
			return func() {}, err
		}
	}
	urgent.count++
	once := sync.OnceFunc(func() {
		urgent.Lock()
		defer urgent.Unlock()
		if urgent.count--; urgent.count == 0 {
			becomeUsual()
		}
	})
	timer := time.AfterFunc(bound, once)
	return func() { timer.Stop(); once() }, nil
}

func realTime(tid int) (changed bool, err error) {
	if a, err := unix.SchedGetAttr(tid, 0); err != nil || a.Policy == unix.SCHED_RR {
		return false, err
	}
	return true, unix.SchedSetAttr(tid, &unix.SchedAttr{Policy: unix.SCHED_RR, Priority: 1}, 0)
}

// becomeUsual takes the policy back. To give it up needs no right, and the nice value is that which the kernel has kept.
func becomeUsual() {
	_ = allThreads(func(tid int) (changed bool, err error) {
		if a, err := unix.SchedGetAttr(tid, 0); err != nil || a.Policy != unix.SCHED_RR {
			return false, err
		}
		nice, err := niceOf(tid)
		if err != nil {
			return false, err
		}
		return true, unix.SchedSetAttr(tid, &unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: int32(nice)}, 0)
	})
	syscall.ForkLock.RUnlock()
}
