package agent

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// manager tells a service manager how a holder fares, by sd_notify(3). Where nobody listens it does nothing. A manager that doesn't read must
// not keep the holder waiting, so messages are sent in the background, and dropped when there are too many.
type manager struct {
	messages chan string
	quit     chan struct{}
	done     chan struct{}
}

// managerEnv are the variables by which a manager makes itself known. They are for the process that it started, not for its children.
func managerEnv() []string { return []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} }

func newManager(log *slog.Logger) *manager {
	m := &manager{messages: make(chan string, 16), quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for quit := m.quit; quit != nil || len(m.messages) > 0; {
			select {
			case msg := <-m.messages:
				if _, err := daemon.SdNotify(false, msg); err != nil {
					log.Warn("the service manager can't be told", "message", msg, "err", err)
				}
			case <-quit:
				quit = nil
			}
		}
	}()
	return m
}

// close sends what is waiting, for a moment at most.
func (m *manager) close() {
	close(m.quit)
	select {
	case <-m.done:
	case <-time.After(time.Second):
	}
}

func (m *manager) tell(format string, args ...any) {
	select {
	case m.messages <- fmt.Sprintf(format, args...):
	default:
	}
}

// watchdog is how long the manager waits for a sign of life; 0: it expects none.
func (m *manager) watchdog() time.Duration {
	d, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0 // a malformed variable asks for nothing
	}
	return d
}

func (m *manager) ready(mount string, server int) {
	m.tell("%s\nMAINPID=%d\nSTATUS=%q is served by process %d", daemon.SdNotifyReady, os.Getpid(), mount, server)
}

func (m *manager) alive() {
	if len(m.messages) == 0 { // what says more comes first
		m.tell(daemon.SdNotifyWatchdog)
	}
}

func (m *manager) reloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return
	}
	m.tell("%s\nMONOTONIC_USEC=%d\nSTATUS=replacing the server", daemon.SdNotifyReloading, now.Nano()/1000)
}

func (m *manager) stopping() {
	m.tell("%s\nSTATUS=unmounted, storing what is left", daemon.SdNotifyStopping)
}

func forgetManager() {
	for _, name := range managerEnv() {
		os.Unsetenv(name)
	}
}

// serverEnv is this process's environment without what is not for servers.
func serverEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(managerEnv(), name)
	})
}
