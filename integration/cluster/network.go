package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/internal/freeport"
)

// nowhere is the hardware address of no node.
const nowhere = "02:00:00:00:00:ff"

// Network joins nodes, whose numbers begin at 0.
type Network struct {
	hub   *namespace // nil: all nodes are on the loopback interface
	nodes []*namespace
	wires map[int]*wire // of slow nodes
}

// NewNetwork makes a namespace for each of n nodes, and joins them.
func NewNetwork(n int) (net *Network, err error) {
	net = &Network{wires: make(map[int]*wire)}
	defer func() {
		if err != nil {
			net.Close()
			err = fmt.Errorf("network namespaces: %w", err)
		}
	}()
	if net.hub, err = newNamespace(); err != nil {
		return net, err
	}
	if err := net.hub.ip("link set lo up", "link add br0 type bridge", "link set br0 up"); err != nil {
		return net, err
	}
	net.nodes = make([]*namespace, n)
	for i := range n {
		if err := net.connect(i); err != nil {
			return net, err
		}
	}
	if err := net.Heal(); err != nil {
		return net, err
	}
	return net, nil
}

// connect makes a node's namespace and its link. Heal joins it to the others.
func (n *Network) connect(i int) (err error) {
	if n.nodes[i], err = newNamespace(); err != nil {
		return err
	}
	// Always the same hardware address: others remember it.
	err = n.hub.ip(
		fmt.Sprintf("link add %s type veth peer name eth0 address 02:00:00:00:01:%02x netns %s", port(i), i, n.nodes[i].path()),
		fmt.Sprintf("link set %s up", port(i)))
	if err != nil {
		return err
	}
	return n.nodes[i].ip("link set lo up", fmt.Sprintf("addr add %s/24 dev eth0", n.Host(i)), "link set eth0 up")
}

// Loopback is a network without namespaces. Nothing of it can be cut.
func Loopback() *Network { return &Network{} }

// CanCut tells whether the nodes can be parted.
func (n *Network) CanCut() bool { return n.hub != nil }

// Close lets the namespaces go. Processes in them keep theirs.
func (n *Network) Close() error {
	if n.hub == nil {
		return nil
	}
	var err error
	for _, w := range n.wires {
		err = errors.Join(err, w.close())
	}
	err = errors.Join(err, n.hub.f.Close())
	for _, ns := range n.nodes {
		if ns != nil {
			err = errors.Join(err, ns.f.Close())
		}
	}
	return err
}

// Host is a node's address.
func (n *Network) Host(i int) string {
	if n.hub == nil {
		return "127.0.0.1"
	}
	return fmt.Sprintf("10.99.0.%d", i+1)
}

// Port gives a free port of a node. With namespaces it is the one that is wished for.
func (n *Network) Port(wished int) (int, error) {
	if n.hub != nil {
		return wished, nil
	}
	return freeport.Take()
}

// Start starts a command on a node.
func (n *Network) Start(i int, cmd *exec.Cmd) error {
	if n.hub == nil {
		return cmd.Start()
	}
	return n.nodes[i].do(cmd.Start)
}

// Kill cuts a node off and ends all that it has: its processes, and what its kernel would still send for them. Heal gives it back, as after a reboot.
func (n *Network) Kill(i int) error {
	if err := n.Isolate(i); err != nil {
		return err
	}
	if err := n.killProcesses(i); err != nil {
		return err
	}
	if err := errors.Join(n.hub.ip("link del "+port(i)), n.nodes[i].f.Close()); err != nil {
		return err
	}
	return n.connect(i)
}

// killProcesses ends all processes of a node but this one.
func (n *Network) killProcesses(i int) error {
	const limit = 20 * time.Second
	here := strconv.Itoa(os.Getpid())
	for deadline := time.Now().Add(limit); ; {
		inside, err := n.nodes[i].processes()
		inside = slices.DeleteFunc(inside, func(pid string) bool { return pid == here })
		switch {
		case err != nil || len(inside) == 0:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("processes %q are still there %v after kill -9", inside, limit)
		}
		for _, pid := range inside {
			if number, err := strconv.Atoi(pid); err == nil {
				_ = unix.Kill(number, unix.SIGKILL) // it may have ended
			}
		}
	}
}

// Drop has packets from a node to another get lost, and nobody is told. The other way stays as it is.
func (n *Network) Drop(from, to int) error {
	return n.nodes[from].ip(fmt.Sprintf("neigh replace %s lladdr %s dev eth0 nud permanent", n.Host(to), nowhere))
}

// Isolate cuts a node off from all others, without a word to either side.
func (n *Network) Isolate(i int) error { return n.hub.ip("link set " + port(i) + " nomaster") }

// Heal undoes all Drops, Isolates and Slows.
func (n *Network) Heal() error {
	if n.hub == nil {
		return nil
	}
	var err error
	for i, ns := range n.nodes {
		err = errors.Join(err, n.fast(i), n.hub.ip("link set "+port(i)+" master br0"), ns.ip("neigh flush dev eth0 nud permanent"))
	}
	return err
}

func port(i int) string { return fmt.Sprintf("node%d", i) }

// namespace is a network namespace without a name: it is there as long as its descriptor is open or a process is in it.
type namespace struct{ f *os.File }

func newNamespace() (*namespace, error) {
	ns := &namespace{}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns.f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return ns, err
}

// path is how other processes open it.
func (ns *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.f.Fd()) }

// processes are those in the namespace.
func (ns *namespace) processes() (pids []string, err error) {
	want, err := ns.f.Stat()
	if err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if got, err := os.Stat(dir + "/ns/net"); err == nil && os.SameFile(got, want) {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids, err
}

// do runs fn in the namespace. Processes that it starts are in it.
func (ns *namespace) do(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return fn()
	})
}

// onThread runs fn on a thread of its own, which ends with it: fn may change what threads have.
func onThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread isn't used again
		done <- fn()
	}()
	return <-done
}

// ip runs commands of ip(8) in the namespace.
func (ns *namespace) ip(lines ...string) error {
	return ns.do(func() error {
		bin, err := exec.LookPath("ip")
		if err != nil {
			bin = "/usr/sbin/ip" // not in everyone's PATH
		}
		cmd := exec.Command(bin, "-batch", "-")
		cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("ip %q: %w: %s", lines, err, out)
		}
		return nil
	})
}
