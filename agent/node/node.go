package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"

	"graphvol/agent"
	"graphvol/agent/clock"
	"graphvol/agent/cluster"
	"graphvol/agent/config"
	"graphvol/agent/pki"
	"graphvol/agent/preflight"
	"graphvol/agent/reach"
	"graphvol/agent/telemetry"
)

// Names in the agent's state directory.
const (
	lockName = "lock"
	logName  = "agent.log"
)

// Options are what Run needs beside the configuration.
type Options struct {
	Config  *config.File
	Self    string // this program, which volumes' holders are started from
	Version string
	// Ready is called when the sockets are open and it was tried to mount every volume.
	Ready func()
	// CanStartAnew tells whether the program could be started with its configuration as it is now: Run returns ErrStartAnew only then.
	CanStartAnew func() error
}

// Node is a running agent.
type Node struct {
	opts    Options
	boot    *config.File // its own file, which makes it what it is
	name    string
	state   string
	log     *slog.Logger
	started time.Time

	tracing     *telemetry.Tracing
	metrics     *telemetry.Metrics
	certs       *pki.Files // nil: no TLS
	now         atomic.Pointer[current]
	clock       *clock.Monitor
	checker     preflight.Checker
	health      *health.Server
	alive       *alive
	schedules   *schedules
	peers       *peers
	etcd        *cluster.Etcd
	records     *cluster.Records
	member      *cluster.Membership
	configs     *cluster.Configs
	etcdMembers *cluster.EtcdMembers
	coordinator *cluster.Coordinator
	terms       cluster.Terms
	mounting    turns
	keeping     turns         // for snapshots' holds and the cluster's manifests
	pruning     turns         // all volumes together
	anew        chan struct{} // is closed when the agent has to start anew
	hooking     turns         // from the first pre hook of a snapshot to its last post hook

	background struct {
		sync.WaitGroup
		ctx    context.Context
		cancel context.CancelFunc
	}

	mu struct {
		sync.Mutex
		problems map[string]string // by what has them
	}
}

// Run is the main function of an agent. It returns when ctx ends, or with ErrStartAnew, and leaves the volumes mounted.
func Run(ctx context.Context, o Options) (err error) {
	n, err := newNode(o)
	if err != nil {
		return err
	}
	lock, err := lockState(n.state)
	if err != nil {
		return err
	}
	defer lock.Close()
	lf, err := agent.OpenLog(n.state, logName, os.Stderr)
	if err != nil {
		return fmt.Errorf("the agent's state directory %s can't be used: %w", n.state, err)
	}
	defer lf.Close()
	var level slog.Level
	if text := o.Config.Node.LogLevel; text != "" && level.UnmarshalText([]byte(text)) != nil {
		return usage("node: there is no log level %q: choose debug, info, warn or error", text)
	}
	n.log = agent.NewLogger(lf, level)
	defer func() { n.log.Info("the agent ends", "err", err) }()
	if err := n.configure(); err != nil {
		return err
	}
	return n.run(ctx)
}

// configure puts the configuration into force that was before: the centre's, if there was one.
func (n *Node) configure() error {
	c, err := newCurrent(n.boot, config.Central{})
	if err != nil {
		return err
	}
	n.now.Store(c)
	central, err := config.ReadKept(n.state)
	if err != nil || central.Revision == 0 {
		return err
	}
	file, err := n.boot.WithCentre(central.Text)
	if err == nil {
		c, err = newCurrent(file, central)
	}
	if err != nil {
		n.log.Error("the configuration of the centre can't be used, and the node's own file is in force", "revision", central.Revision, "err", err)
		n.problem("configuration", err)
		return nil
	}
	n.now.Store(c)
	return nil
}

func newNode(o Options) (*Node, error) {
	n := &Node{opts: o, boot: o.Config, name: o.Config.Node.Name, state: o.Config.Node.State, started: time.Now()}
	n.mu.problems = make(map[string]string)
	n.anew = make(chan struct{})
	n.background.ctx, n.background.cancel = context.WithCancel(context.Background())
	if n.name == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("the host's name: %w; give node: name", err)
		}
		n.name = host
	}
	if n.state == "" {
		n.state = config.DefaultNodeState
	}
	return n, nil
}

// lockState keeps a second agent out of the state directory.
func lockState(state string) (*os.File, error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("the agent's state directory can't be made: %w; choose another (node: state)", err)
	}
	f, err := os.OpenFile(filepath.Join(state, lockName), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the agent's state directory can't be used: %w; choose another (node: state)", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, &agent.Error{Code: codes.FailedPrecondition, Message: fmt.Sprintf("another agent uses %s: one machine needs one (graphvol cluster status)", state), Err: err}
	}
	return f, nil
}

func instance(started time.Time) string { return fmt.Sprintf("%d-%d", os.Getpid(), started.UnixNano()) }

func (n *Node) members(ctx context.Context) ([]cluster.Member, error) { return n.member.Members(ctx) }

func (n *Node) settings() cluster.Settings {
	c := n.now.Load().file.Cluster
	return cluster.Settings{Nodes: c.Nodes, Timeout: c.Timeout, Hold: c.HoldTimeout, MaxConcurrent: c.MaxConcurrent}
}

// address is where others reach this node. A node that doesn't listen for others is reached by itself alone, over its socket.
func (n *Node) address() string {
	switch {
	case n.boot.Node.Advertise != "":
		return n.boot.Node.Advertise
	case n.boot.Node.Listen != "":
		return n.boot.Node.Listen
	}
	return "unix:" + n.socket()
}

func (n *Node) socket() string { return reach.SocketPath(n.state) }

// problem notes what is wrong with something; nil: nothing any more.
func (n *Node) problem(of string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.problems, of)
	if err != nil && !errors.Is(err, context.Canceled) {
		n.mu.problems[of] = agent.Message(err)
	}
}

func usage(format string, args ...any) error {
	return &agent.Error{Code: codes.InvalidArgument, Message: fmt.Sprintf(format, args...)}
}
