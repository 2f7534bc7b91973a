package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/volume"
)

// mounting is a node whose agents are killed while they mount.
type mounting struct {
	*test
	n *Node
	v *volume.Volume
}

// TestKilledWhileMounting: what a dead agent has begun to mount doesn't come up behind the back of those who come after it, and the next agent has the volume mounted.
func TestKilledWhileMounting(t *testing.T) {
	t.Parallel()
	c := start(t, Options{Net: Loopback(), Size: 1})
	m := &mounting{c, c.Nodes[0], c.Nodes[0].Volumes[0]}
	for _, part := range []struct {
		name string
		run  func(*mounting)
	}{
		{"nothing is mounted yet", (*mounting).early},
		{"nothing was mounted, and the next agent has", (*mounting).overtaken},
		{"nothing was mounted, and what the next agent had is unmounted", (*mounting).late},
		{"the server opens", (*mounting).opening},
		{"the server can't open", (*mounting).failing},
		{"the server hangs", (*mounting).hanging},
		{"at any time", (*mounting).anytime},
	} {
		t.Run(part.name, func(t *testing.T) {
			if part.name == "the server hangs" && !*matrix {
				t.Skip("takes long: -cluster.matrix")
			}
			m := &mounting{&test{m.Cluster, t}, m.n, m.v}
			m.stop()
			part.run(m)
			m.whole()
		})
	}
}

// stop leaves neither an agent nor a mount.
func (m *mounting) stop() {
	m.Helper()
	ctx, cancel := m.bounded()
	defer cancel()
	m.n.Kill()
	if err := m.v.Umount(ctx); err != nil {
		m.Fatal(err)
	}
	m.ended()
}

// ended waits until nothing of the volume runs.
func (m *mounting) ended() {
	m.Helper()
	m.eventually("the volume's processes have ended", func(context.Context) bool { return len(m.v.Processes()) == 0 })
}

// begin starts an agent whose holders are started by a program.
func (m *mounting) begin(program string) *exec.Cmd {
	m.Helper()
	options, err := json.Marshal(map[string]any{"config": m.n.Config, "program": program})
	if err != nil {
		m.Fatal(err)
	}
	cmd := exec.Command(m.Bin+"-agent", string(options))
	cmd.Stderr = new(bytes.Buffer)
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	return cmd
}

func (m *mounting) kill(agent *exec.Cmd) {
	agent.Process.Kill()
	agent.Wait()
}

// halted kills an agent that has started a holder, which goes on when release is called, and returns when that has ended.
func (m *mounting) halted() (release func()) {
	m.Helper()
	dir := m.TempDir()
	program := filepath.Join(dir, "program")
	script := fmt.Sprintf("#!/bin/sh\n: > %[1]s/begun\nwhile [ ! -e %[1]s/go ]; do sleep 0.01; done\n%[2]s \"$@\"\n: > %[1]s/ended\n", dir, m.Bin)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		m.Fatal(err)
	}
	there := func(name string) {
		m.Helper()
		m.eventually("the holder has "+name, func(context.Context) bool {
			_, err := os.Stat(filepath.Join(dir, name))
			return err == nil
		})
	}
	agent := m.begin(program)
	there("begun")
	m.kill(agent)
	return func() {
		m.Helper()
		if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
			m.Fatal(err)
		}
		there("ended")
	}
}

// unmounted fails the test if there is a mount.
func (m *mounting) unmounted() {
	m.Helper()
	if volume.Mounted(m.v.Mount) {
		m.Errorf("the holder of a dead agent has mounted %s", m.v.Mount)
	}
}

// next starts the next agent.
func (m *mounting) next() {
	m.Helper()
	ctx, cancel := m.bounded()
	defer cancel()
	if err := m.Start(ctx); err != nil {
		m.Fatal(err)
	}
}

// whole waits until the volume is mounted once, and well.
func (m *mounting) whole() {
	m.Helper()
	m.eventually("the volume is mounted, once", func(ctx context.Context) bool {
		_, err := m.v.Status(ctx)
		points := slices.DeleteFunc(volume.Mounts(), func(p string) bool { return p != m.v.Mount })
		return err == nil && len(points) == 1 && len(m.v.Processes()) == 2 && m.row(ctx, m.n).Problem == ""
	})
}

func (m *mounting) early() {
	m.halted()()
	m.unmounted()
	m.next()
}

func (m *mounting) overtaken() {
	release := m.halted()
	m.next()
	m.whole()
	before := m.v.Processes()
	release()
	if after := m.v.Processes(); !slices.Equal(before, after) {
		m.Errorf("the volume had the processes %v, and has %v", before, after)
	}
}

func (m *mounting) late() {
	release := m.halted()
	m.next()
	m.whole()
	m.stop()
	release()
	m.unmounted()
	m.next()
}

// lockIndex keeps servers from opening the volume, for a second each, until unlock.
func (m *mounting) lockIndex() (unlock func()) {
	m.Helper()
	f, err := os.Open(filepath.Join(m.v.StateDir(), "index.db"))
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		m.Fatal(err)
	}
	return func() { f.Close() }
}

// mountedOnly kills an agent that has mounted, and whose server opens.
func (m *mounting) mountedOnly() {
	m.Helper()
	agent := m.begin(m.Bin)
	m.eventually("the volume is mounted", func(context.Context) bool { return volume.Mounted(m.v.Mount) })
	m.kill(agent)
}

func (m *mounting) opening() {
	unlock := m.lockIndex()
	m.mountedOnly()
	unlock()
	m.next()
}

func (m *mounting) failing() {
	unlock := m.lockIndex()
	m.mountedOnly()
	m.next()
	unlock()
}

// hanging has a server do nothing for longer than the next agent waits for it, and then die.
func (m *mounting) hanging() {
	unlock := m.lockIndex()
	agent := m.begin(m.Bin)
	server := 0
	m.eventually("the server has been started", func(context.Context) bool {
		for _, pid := range m.v.Processes() {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if strings.Contains(string(line), "\x00serve\x00") {
				server = pid
			}
		}
		return server != 0
	})
	if err := unix.Kill(server, unix.SIGSTOP); err != nil {
		m.Fatal(err)
	}
	m.kill(agent)
	unlock()
	m.next()
	if err := unix.Kill(server, unix.SIGKILL); err != nil {
		m.Fatal(err)
	}
}

func (m *mounting) anytime() {
	seed := *seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	m.Logf("-cluster.seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 4 {
		agent := m.begin(m.Bin)
		time.Sleep(time.Duration(rng.Int64N(int64(150 * time.Millisecond))))
		m.kill(agent)
	}
	m.next()
}
