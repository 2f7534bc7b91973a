package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"graphvol/integration/volume"
)

// Options say what a cluster is made of. Bin, Dir and Net must be given.
type Options struct {
	Bin     string // the graphvol binary
	Dir     string // holds a directory for each node, and one for certificates
	Net     *Network
	Size    int           // nodes; default 3
	Volumes []Volume      // of each node; default: one with the default cache
	Timeout time.Duration // default 10 s
	Hold    time.Duration // default: the agent's own
	Debug   bool          // volumes log more
	Hooks   bool          // volumes have hooks: the file AtRest is there while their databases are at rest
	// Disk gives the directory of a node's own; nil: it is in Dir.
	Disk func(name string) string
	Etcd []string // URLs of an etcd that is there already; default: the agents' own
	// Extra gives what else is in a node's configuration; nil: nothing.
	Extra func(*Node) (string, error)
}

// Volume is one of each node's.
type Volume struct {
	Name    string
	Cache   string // writeback or through; default: the agent's own
	Backing string // a pattern with %s for the node's name; default: in the node's directory
}

// Cluster is some nodes that know each other.
type Cluster struct {
	Options
	Nodes []*Node
}

// New makes the nodes' directories, certificates and configurations. Nothing runs yet.
func New(ctx context.Context, o Options) (*Cluster, error) {
	if o.Size == 0 {
		o.Size = 3
	}
	if len(o.Volumes) == 0 {
		o.Volumes = []Volume{{Name: "graph"}}
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	c := &Cluster{Options: o}
	if _, err := run(ctx, o.Bin, "cert", "ca", c.certs()); err != nil {
		return nil, err
	}
	for i := range o.Size {
		n := &Node{Name: string(rune('a' + i)), cluster: c, number: i}
		if err := c.makeNode(ctx, n); err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, n)
	}
	return c, c.configure()
}

func (c *Cluster) certs() string { return filepath.Join(c.Dir, "certs") }

func (c *Cluster) makeNode(ctx context.Context, n *Node) error {
	dir := filepath.Join(c.Dir, n.Name)
	if c.Disk != nil {
		dir = c.Disk(n.Name)
	}
	n.Config, n.State = filepath.Join(dir, "graphvol.yaml"), filepath.Join(dir, "agent")
	for _, o := range c.Options.Volumes {
		vo := volume.Options{Bin: c.Bin, Dir: filepath.Join(dir, o.Name), Cache: o.Cache}
		if o.Backing != "" {
			vo.Backing = fmt.Sprintf(o.Backing, n.Name)
		}
		v, err := volume.New(vo)
		if err != nil {
			return err
		}
		n.Volumes = append(n.Volumes, v)
	}
	_, err := run(ctx, c.Bin, "cert", "node", c.certs(), n.Name, "--host", c.Net.Host(n.number))
	return err
}

// configure chooses the ports of all nodes, and writes their configurations.
func (c *Cluster) configure() error {
	for _, n := range c.Nodes {
		if err := n.choosePorts(); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes {
		if err := c.writeConfig(n); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) choosePorts() error {
	for j, wished := range []int{7440, 7441, 7443} {
		p, err := n.cluster.Net.Port(wished)
		if err != nil {
			return err
		}
		n.ports[j] = p
	}
	return nil
}

// EtcdURL is where others reach the node's member of etcd.
func (n *Node) EtcdURL() string {
	return fmt.Sprintf("https://%s:%d", n.cluster.Net.Host(n.number), n.ports[1])
}

// writeConfig writes a node's configuration, with all nodes that there are as members of etcd.
func (c *Cluster) writeConfig(n *Node) error {
	text, err := c.config(n)
	if err != nil {
		return err
	}
	return os.WriteFile(n.Config, []byte(text), 0o644)
}

// AddNode makes one more node. It isn't started, and the others' configurations don't name it.
func (c *Cluster) AddNode(ctx context.Context) (*Node, error) {
	n := &Node{Name: string(rune('a' + len(c.Nodes))), cluster: c, number: len(c.Nodes)}
	if err := errors.Join(c.makeNode(ctx, n), n.choosePorts()); err != nil {
		return nil, err
	}
	c.Nodes = append(c.Nodes, n)
	return n, c.writeConfig(n)
}

// Burn ends a node's agent and its volumes, and removes all that they had.
func (c *Cluster) Burn(n *Node) error {
	if err := n.close(); err != nil {
		return err
	}
	if err := os.RemoveAll(n.State); err != nil {
		return err
	}
	for _, v := range n.Volumes {
		if err := errors.Join(os.RemoveAll(v.Backing), os.RemoveAll(v.StateDir()), os.Mkdir(v.Backing, 0o755)); err != nil {
			return err
		}
	}
	return nil
}

// config is a node's graphvol.yaml.
func (c *Cluster) config(n *Node) (string, error) {
	host := c.Net.Host(n.number)
	var b strings.Builder
	fmt.Fprintf(&b, "node:\n  name: %s\n  listen: %s:%d\n  metrics: %[2]s:%[4]d\n  state: %[5]s\n", n.Name, host, n.ports[0], n.ports[2], n.State)
	fmt.Fprintf(&b, "  tls: {ca: %[1]s/ca.crt, cert: %[1]s/%[2]s.crt, key: %[1]s/%[2]s.key}\n", c.certs(), n.Name)
	if len(c.Etcd) == 0 {
		fmt.Fprintf(&b, "etcd:\n  listen: %s\n  members:\n", n.EtcdURL())
		for _, m := range c.Nodes {
			fmt.Fprintf(&b, "    %s: %s\n", m.Name, m.EtcdURL())
		}
	}
	fmt.Fprintf(&b, "cluster:\n  nodes: [%s]\n  timeout: %v\n", c.names(), c.Timeout)
	if c.Hold > 0 {
		fmt.Fprintf(&b, "  hold-timeout: %v\n", c.Hold)
	}
	b.WriteString("volumes:\n")
	for j, v := range n.Volumes {
		fmt.Fprintf(&b, "  - name: %s\n    backing: %s\n    mount: %s\n    snapshot: {settle-after: 0s}\n", c.Options.Volumes[j].Name, v.Backing, v.Mount)
		if c.Debug {
			b.WriteString("    log-level: debug\n")
		}
		if c.Hooks {
			fmt.Fprintf(&b, "    hooks: {pre: [{command: [/bin/touch, %[1]s]}], post: [{command: [/bin/rm, -f, %[1]s]}]}\n", AtRest(v))
		}
		if v.Cache != "" {
			fmt.Fprintf(&b, "    cache: %s\n", v.Cache)
		}
	}
	if c.Extra != nil {
		text, err := c.Extra(n)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// AtRest is a file that a volume's hooks make and remove.
func AtRest(v *volume.Volume) string { return filepath.Join(v.Dir, "at-rest") }

func (c *Cluster) names() string {
	var all []string
	for _, n := range c.Nodes {
		all = append(all, n.Name)
	}
	return strings.Join(all, ", ")
}

// Start starts all agents that don't run, and waits for Whole.
func (c *Cluster) Start(ctx context.Context) error {
	errs := make([]error, len(c.Nodes))
	var all sync.WaitGroup
	for i, n := range c.Nodes {
		if n.agent == nil {
			all.Go(func() { errs[i] = n.Start(ctx) })
		}
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.Whole(ctx)
}

// Whole returns when every agent lists all nodes, and the same coordinator.
func (c *Cluster) Whole(ctx context.Context) error {
	var last error
	for {
		if last = c.whole(ctx); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Cluster) whole(ctx context.Context) error {
	coordinator := ""
	for _, n := range c.Nodes {
		st, err := n.Status(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("node %s: %w", n.Name, err)
		case len(st.Nodes) != len(c.Nodes):
			return fmt.Errorf("node %s lists %d nodes, want %d", n.Name, len(st.Nodes), len(c.Nodes))
		case st.Coordinator == "" || coordinator != "" && st.Coordinator != coordinator:
			return fmt.Errorf("node %s calls %q the coordinator, another one %q", n.Name, st.Coordinator, coordinator)
		}
		coordinator = st.Coordinator
	}
	return nil
}

// Coordinator asks the nodes, one after the other, which one coordinates.
func (c *Cluster) Coordinator(ctx context.Context) (*Node, error) {
	var errs []error
	for _, n := range c.Nodes {
		st, err := n.Status(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if i := slices.IndexFunc(c.Nodes, func(n *Node) bool { return n.Name == st.Coordinator }); i >= 0 {
			return c.Nodes[i], nil
		}
	}
	return nil, errors.Join(append(errs, errors.New("no node knows a coordinator"))...)
}

// Close ends the agents and unmounts the volumes.
func (c *Cluster) Close() error {
	errs := make([]error, len(c.Nodes))
	var all sync.WaitGroup
	for i, n := range c.Nodes {
		all.Go(func() { errs[i] = n.close() })
	}
	all.Wait()
	return errors.Join(errs...)
}
