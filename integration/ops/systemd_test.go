package ops

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/rig"
	"graphvol/integration/volume"
)

const (
	unitFile      = "../../contrib/systemd/graphvol@.service"
	agentUnitFile = "../../contrib/systemd/graphvol-agent.service"
	unitBinary    = "/usr/local/bin/graphvol"
)

// manager is what systemd is for a service: a socket that it sends to, and the unit's commands.
type manager struct {
	t       *testing.T
	conn    *net.UnixConn
	address string
	env     []string // of the unit's EnvironmentFile
	unit    map[string]string
}

// newManager reads the unit. The address may begin with @: an abstract socket.
func newManager(t *testing.T, v *volume.Volume, address, options string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	raw, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, conn: conn, address: address, unit: make(map[string]string)}
	m.env = []string{"BACKING=" + v.Backing, "MOUNT=" + v.Mount, "OPTIONS=" + options}
	for line := range strings.Lines(strings.ReplaceAll(string(raw), unitBinary, v.Bin)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			m.unit[key] = value
		}
	}
	return m
}

// command makes one of the unit's commands. The shell expands its variables as systemd does: $X in words, ${X} as one.
func (m *manager) command(key string) *exec.Cmd {
	line := strings.TrimPrefix(m.unit[key], "-")
	for _, name := range []string{"BACKING", "MOUNT"} {
		line = strings.ReplaceAll(line, "${"+name+"}", `"$`+name+`"`)
	}
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Env = append(os.Environ(), m.env...)
	cmd.Stderr = os.Stderr
	return cmd
}

func (m *manager) run(key string) {
	m.t.Helper()
	if out, err := m.command(key).Output(); err != nil {
		m.t.Fatalf("%s=%s: %v: %s", key, m.unit[key], err, out)
	}
}

// start starts the service and waits until it is ready.
func (m *manager) start(watchdog time.Duration) *exec.Cmd {
	m.t.Helper()
	cmd := m.command("ExecStart")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.address, "WATCHDOG_USEC="+strconv.FormatInt(watchdog.Microseconds(), 10))
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	msg := m.await("READY=1")
	if !strings.Contains(msg, fmt.Sprintf("MAINPID=%d\n", cmd.Process.Pid)) || !strings.Contains(msg, "STATUS=") {
		m.t.Errorf("the first message is %q, of process %d", msg, cmd.Process.Pid)
	}
	return cmd
}

// await reads messages up to one that begins with a line.
func (m *manager) await(line string) string {
	m.t.Helper()
	buf := make([]byte, 4096)
	m.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		n, err := m.conn.Read(buf)
		if err != nil {
			m.t.Fatalf("waiting for %s: %v", line, err)
		}
		if msg := string(buf[:n]); strings.HasPrefix(msg, line) {
			return msg
		}
	}
}

// TestUnit does what systemd does with the unit: start, reload, a hung server, stop.
func TestUnit(t *testing.T) {
	for _, kind := range []string{"path", "abstract"} {
		t.Run(kind, func(t *testing.T) {
			v := rig.NewVolume(t, volume.Options{})
			address := filepath.Join(t.TempDir(), "notify")
			if kind == "abstract" {
				address = fmt.Sprintf("@graphvol-test-%d", os.Getpid())
			}
			m := newManager(t, v, address, "--hang-timeout 2s --cache through")
			cmd := m.start(900 * time.Millisecond)
			for range 3 {
				m.await("WATCHDOG=1")
			}
			before := status(t, v)
			checkEnvironment(t, before.ServerPID)
			m.run("ExecReload")
			m.await("RELOADING=1\nMONOTONIC_USEC=")
			m.await("READY=1")
			after := status(t, v)
			if after.ServerPID == before.ServerPID || after.HolderPID != cmd.Process.Pid {
				t.Errorf("before %+v, after %+v, holder %d", before, after, cmd.Process.Pid)
			}
			if err := unix.Kill(after.ServerPID, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			m.await("READY=1")
			m.await("WATCHDOG=1")
			m.run("ExecStop")
			if err := cmd.Wait(); err != nil {
				t.Errorf("the service ended: %v", err)
			}
			if stacks := rig.TakeStderr(v); !strings.Contains(stacks, "SIGQUIT") {
				t.Errorf("no stacks of the server that hung: %.500s", stacks)
			}
		})
	}
}

// checkEnvironment: a server must not speak for the service.
func checkEnvironment(t *testing.T, pid int) {
	t.Helper()
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || bytes.Contains(env, []byte("NOTIFY_SOCKET")) || bytes.Contains(env, []byte("WATCHDOG")) {
		t.Errorf("the server's environment: %v, %q", err, env)
	}
}

// TestUnitStopsByItself: SIGTERM, which is what systemd sends when ExecStop has not sufficed, unmounts and says so.
func TestUnitStopsByItself(t *testing.T) {
	v := rig.NewVolume(t, volume.Options{})
	m := newManager(t, v, filepath.Join(t.TempDir(), "notify"), "")
	cmd := m.start(0)
	f, err := os.Create(filepath.Join(v.Mount, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// A busy volume stays.
	if err := m.command("ExecStop").Run(); err == nil {
		t.Error("a busy volume was unmounted")
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(v.StateDir(), "log", "holder.log")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if raw, _ := os.ReadFile(log); bytes.Contains(raw, []byte("not unmounted")) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("SIGTERM to the holder of a busy volume is not logged")
		}
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Errorf("the database's file: %v", err)
	}
	f.Close()
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.await("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the service ended: %v", err)
	}
}

// TestUnitFile has systemd read the units.
func TestUnitFile(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze (Debian's package systemd)")
	}
	bin, err := rig.Binary()
	if err != nil {
		t.Fatal(err)
	}
	for file, name := range map[string]string{unitFile: "graphvol@graph.service", agentUnitFile: "graphvol-agent.service"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(unit, bytes.ReplaceAll(raw, []byte(unitBinary), []byte(bin)), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: systemd-analyze verify: %v\n%s", name, err, out)
		}
	}
}
