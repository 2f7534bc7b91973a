package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"graphvol/integration/volume"
)

// Node is one node: its directories, its volumes, and its agent while that runs. Start, Kill and Stop are for one goroutine.
type Node struct {
	Name    string
	Volumes []*volume.Volume // in the order of Options.Volumes
	Config  string           // path of its graphvol.yaml
	State   string           // the agent's directory

	cluster *Cluster
	number  int
	ports   [3]int        // of its agent, its etcd, and its metrics
	agent   *exec.Cmd     // nil: none runs
	ended   chan struct{} // closed when it has ended
}

// Row is a snapshot of the cluster, as the commands print it.
type Row struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	State    string     `json:"state"`
	Parent   string     `json:"parent"`
	HoldMS   float64    `json:"hold_ms"`
	TookMS   float64    `json:"took_ms"`
	Checksum string     `json:"checksum_sha256"`
	Error    string     `json:"error"`
	Trace    string     `json:"trace_id"`
	Nodes    []NodePart `json:"nodes"`
}

// NodePart is a node's part in it.
type NodePart struct {
	Node    string `json:"node"`
	Volumes []Part `json:"volumes"`
}

// Part is a volume's.
type Part struct {
	Volume   string  `json:"volume"`
	Snapshot string  `json:"snapshot"`
	State    string  `json:"state"`
	HoldMS   float64 `json:"hold_ms"`
	Checksum string  `json:"checksum_sha256"`
	Error    string  `json:"error"`
}

// Final tells whether the snapshot's state can't change any more.
func (r *Row) Final() bool { return r.State == "complete" || r.State == "failed" }

// Status is what graphvol cluster status prints.
type Status struct {
	Coordinator string `json:"coordinator"`
	Nodes       []struct {
		Name     string   `json:"name"`
		State    string   `json:"state"`
		Evidence []string `json:"evidence"`
		Volumes  []string `json:"volumes"`
		Config   string   `json:"config"`
		Problem  string   `json:"problem"`
	} `json:"nodes"`
}

// Start starts the node's agent, and returns when it has tried to mount its volumes and answers.
func (n *Node) Start(ctx context.Context) error {
	out, err := os.OpenFile(n.outputPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	args := []string{"agent", "--config", n.Config}
	if len(n.cluster.Etcd) > 0 {
		args = append(args, "--etcd", strings.Join(n.cluster.Etcd, ","))
	}
	cmd := exec.Command(n.cluster.Bin, args...)
	cmd.Stdout, cmd.Stderr = w, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C is for the test alone
	err = n.cluster.Net.Start(n.number, cmd)
	w.Close()
	if err != nil {
		return errors.Join(err, r.Close())
	}
	n.agent, n.ended = cmd, make(chan struct{})
	go func() {
		cmd.Wait()
		r.Close() // not before, or else what it writes kills it
		close(n.ended)
	}()
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if got, err := r.Read(make([]byte, 64)); err != nil || got == 0 {
		n.Kill()
		return fmt.Errorf("the agent of %s doesn't become ready: %w; its standard error: %s", n.Name, errors.Join(err, ctx.Err()), n.Output())
	}
	return nil
}

func (n *Node) outputPath() string { return filepath.Join(filepath.Dir(n.Config), "stderr") }

// Output is what the node's agents have written to standard error.
func (n *Node) Output() string {
	p, _ := os.ReadFile(n.outputPath())
	return string(p)
}

// Signal sends a signal to the agent.
func (n *Node) Signal(s unix.Signal) error {
	if n.agent == nil {
		return nil
	}
	return n.agent.Process.Signal(s)
}

// Isolate cuts the node off from all others.
func (n *Node) Isolate() error { return n.cluster.Net.Isolate(n.number) }

// Kill ends the agent with SIGKILL.
func (n *Node) Kill() {
	if n.agent != nil {
		n.agent.Process.Kill()
		<-n.ended
		n.agent = nil
	}
}

// Die is the end of the node's machine: from one moment on nobody hears of it any more, and nothing of it runs. It leaves no mounts; Network.Heal and Start boot it.
func (n *Node) Die() error {
	err := n.cluster.Net.Kill(n.number)
	n.Kill()
	for _, v := range n.Volumes {
		err = errors.Join(err, v.Detach())
	}
	return err
}

// Stop ends the agent as systemd does, and waits for it.
func (n *Node) Stop() error {
	if n.agent == nil {
		return nil
	}
	n.Signal(unix.SIGCONT)
	n.Signal(unix.SIGTERM)
	var err error
	select {
	case <-n.ended:
	case <-time.After(20 * time.Second):
		n.Signal(unix.SIGQUIT) // its goroutines go to the output
		select {
		case <-n.ended:
		case <-time.After(5 * time.Second):
		}
		err = fmt.Errorf("the agent of %s doesn't end: %s", n.Name, n.Output())
	}
	n.Kill()
	return err
}

// close kills the agent and unmounts the volumes: an etcd whose others have gone takes seconds to end.
func (n *Node) close() error {
	n.Kill()
	var err error
	for _, v := range n.Volumes {
		err = errors.Join(err, v.Close())
	}
	return err
}

// Run runs graphvol cluster with the node's configuration.
func (n *Node) Run(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"cluster"}, append(args, "--config", n.Config)...)
	return run(ctx, n.cluster.Bin, args...)
}

func run(ctx context.Context, bin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, bin, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return stdout.String(), &volume.ExitError{Args: args, Code: exit.ExitCode(), Stderr: stderr.String()}
	}
	if err != nil {
		err = fmt.Errorf("graphvol %s: %w: %s", strings.Join(args, " "), errors.Join(err, ctx.Err()), stderr.String())
	}
	return stdout.String(), err
}

// Snapshot takes a snapshot of the cluster by this node's agent.
func (n *Node) Snapshot(ctx context.Context, name string, args ...string) (Row, error) {
	return query[Row](n, ctx, append([]string{"snapshot", "--name", name}, args...)...)
}

// Snapshots lists the snapshots of the cluster, oldest first.
func (n *Node) Snapshots(ctx context.Context) ([]Row, error) {
	list, err := query[struct {
		Snapshots []Row `json:"snapshots"`
	}](n, ctx, "snapshots")
	return list.Snapshots, err
}

// Status asks how the nodes fare.
func (n *Node) Status(ctx context.Context) (Status, error) { return query[Status](n, ctx, "status") }

func query[T any](n *Node, ctx context.Context, args ...string) (v T, err error) {
	out, err := n.Run(ctx, append(args, "--json")...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &v)
	}
	return v, err
}
