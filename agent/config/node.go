package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"time"

	"github.com/dustin/go-humanize"
)

// Node is what one agent is: its name, and where others reach it. It can't change while the agent runs, and is in its file alone.
type Node struct {
	Name      string `yaml:"name"`      // unique in the cluster; empty: the host's name
	Listen    string `yaml:"listen"`    // HOST:PORT for other agents; empty: none can reach it
	Advertise string `yaml:"advertise"` // HOST:PORT as others reach it; empty: Listen
	State     string `yaml:"state"`     // directory of the agent's own; empty: DefaultNodeState
	TLS       TLS    `yaml:"tls"`
	Metrics   string `yaml:"metrics"` // HOST:PORT of the page for Prometheus; empty: none
	Traces    string `yaml:"traces"`  // URL of an OTLP collector; empty: none
	LogLevel  string `yaml:"log-level"`
}

// DefaultNodeState is the agent's directory if the configuration names none.
const DefaultNodeState = "/var/lib/graphvol/agent"

// TLS names the files by which two sides know each other: both show a certificate that CA has signed.
type TLS struct {
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Set tells whether files are named.
func (t TLS) Set() bool { return t != TLS{} }

// Etcd says where agents agree: in an etcd of their own, which runs inside the agents, or in one that is there already.
type Etcd struct {
	Endpoints []string          `yaml:"endpoints"` // URLs of an etcd that is there already; none: the agent's own
	TLS       TLS               `yaml:"tls"`       // for both; empty: the node's
	Listen    string            `yaml:"listen"`    // URL for the other members of the agents' own
	Client    string            `yaml:"client"`    // URL for clients of the agents' own; empty: this machine alone
	Members   map[string]string `yaml:"members"`   // of the agents' own, which a node asks when it is first started: node's name to its URL; empty: this node alone
}

// Cluster is what all nodes of a cluster have in common.
type Cluster struct {
	Name          string        `yaml:"name"`           // empty: "graphvol"
	Nodes         []string      `yaml:"nodes"`          // those that a snapshot needs; empty: all that are there
	SamePaths     bool          `yaml:"same-paths"`     // no snapshot if volumes with one name are at other paths on other nodes
	Timeout       time.Duration `yaml:"timeout"`        // of a snapshot, without storing it
	HoldTimeout   time.Duration `yaml:"hold-timeout"`   // a gate opens by itself after it
	MaxConcurrent int           `yaml:"max-concurrent"` // snapshots of the cluster that are being stored
	Schedule      string        `yaml:"schedule"`       // of snapshots of the cluster, cron's five fields
	Keep          Keep          `yaml:"keep"`
}

// Keep says which snapshots are kept; with all zero nothing is deleted.
type Keep struct {
	Last    int      `yaml:"last"`
	Hourly  int      `yaml:"hourly"`
	Daily   int      `yaml:"daily"`
	Weekly  int      `yaml:"weekly"`
	Monthly int      `yaml:"monthly"`
	Yearly  int      `yaml:"yearly"`
	Within  string   `yaml:"within"` // as 1y6m14d12h
	Tags    []string `yaml:"tags"`
}

// Hooks are commands around the pause of a snapshot.
type Hooks struct {
	Pre  []Hook `yaml:"pre"`
	Post []Hook `yaml:"post"` // run after every pre that was begun, whatever has become of it and of the snapshot
}

// Hook is one command. It is run without a shell.
type Hook struct {
	Command []string      `yaml:"command"`
	Timeout time.Duration `yaml:"timeout"` // 0: 30 s
}

// Metadata says where a node reads what the graph is: vertex types, edge types, the partition map and its version. One of the three.
type Metadata struct {
	Command  []string      `yaml:"command"` // prints JSON
	File     string        `yaml:"file"`    // holds JSON
	Postgres *Postgres     `yaml:"postgres"`
	Timeout  time.Duration `yaml:"timeout"` // 0: 10 s
}

// Postgres is a connection to PostgreSQL, and queries.
type Postgres struct {
	DSN   string `yaml:"dsn"`   // a connection string, without password: PGPASSFILE and PGPASSWORD say it
	Query string `yaml:"query"` // one row with one column, which is the JSON
	Role  string `yaml:"role"`  // the role that makes backups, which preflight looks at; empty: the DSN's
}

// Preflight says what is looked at before snapshots, beside what is looked at always.
type Preflight struct {
	Postgres  []Postgres `yaml:"postgres"`
	NTP       []string   `yaml:"ntp"`        // HOST[:PORT] of time servers
	FreeSpace string     `yaml:"free-space"` // that each state directory's disk must have, as 10GiB; empty: 1GiB
}

// DefaultFreeSpace is how much a state directory's disk must have free, in bytes, if the configuration doesn't say.
const DefaultFreeSpace = 1 << 30

// LeastFree gives FreeSpace in bytes.
func (p *Preflight) LeastFree() (int64, error) {
	if p.FreeSpace == "" {
		return DefaultFreeSpace, nil
	}
	n, err := humanize.ParseBytes(p.FreeSpace)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("preflight: free-space %q is no size: write it as 10GiB", p.FreeSpace)
	}
	return int64(n), nil
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// CheckName refuses what can't be the name of a node, a cluster or a volume.
func CheckName(name string) error {
	if !nodeName.MatchString(name) {
		return fmt.Errorf("name %q: letters, digits, dots, hyphens and underscores, up to 63, are taken", name)
	}
	return nil
}

func (c *File) checkNode() error {
	n := &c.Node
	switch {
	case n.Name != "" && CheckName(n.Name) != nil:
		return fmt.Errorf("node: %w", CheckName(n.Name))
	case c.Cluster.Name != "" && CheckName(c.Cluster.Name) != nil:
		return fmt.Errorf("cluster: %w", CheckName(c.Cluster.Name))
	case len(c.Etcd.Endpoints) > 0 && (len(c.Etcd.Members) > 0 || c.Etcd.Listen != "" || c.Etcd.Client != ""):
		return errors.New("etcd: endpoints are of an etcd that is there already; listen, client and members are of the agents' own: choose one")
	case len(c.Etcd.Members) > 1 && c.Etcd.Members[n.Name] == "":
		return fmt.Errorf("etcd: members has no URL of this node (node: name is %q)", n.Name)
	case c.Cluster.Timeout < 0, c.Cluster.HoldTimeout < 0, c.Cluster.MaxConcurrent < 0:
		return errors.New("cluster: timeout, hold-timeout and max-concurrent can't be negative")
	}
	for _, a := range []struct{ key, addr string }{{"listen", n.Listen}, {"advertise", n.Advertise}, {"metrics", n.Metrics}} {
		if _, _, err := net.SplitHostPort(a.addr); a.addr != "" && err != nil {
			return fmt.Errorf("node: %s %q: write it as HOST:PORT", a.key, a.addr)
		}
	}
	for _, p := range []struct{ key, path string }{
		{"node: state", n.State}, {"node: tls: ca", n.TLS.CA}, {"node: tls: cert", n.TLS.Cert}, {"node: tls: key", n.TLS.Key},
		{"etcd: tls: ca", c.Etcd.TLS.CA}, {"etcd: tls: cert", c.Etcd.TLS.Cert}, {"etcd: tls: key", c.Etcd.TLS.Key},
		{"metadata: file", c.Metadata.File},
	} {
		if err := checkPath(p.path, false); err != nil {
			return fmt.Errorf("%s %w", p.key, err)
		}
	}
	for _, t := range []struct {
		key string
		tls TLS
	}{{"node", n.TLS}, {"etcd", c.Etcd.TLS}} {
		if t.tls.Set() && (t.tls.CA == "" || t.tls.Cert == "" || t.tls.Key == "") {
			return fmt.Errorf("%s: tls needs all of ca, cert and key", t.key)
		}
	}
	if err := c.checkReach(); err != nil {
		return err
	}
	if _, err := c.Preflight.LeastFree(); err != nil {
		return err
	}
	return c.Metadata.check()
}

// checkReach refuses to be open to everybody: who reaches an agent may take its data away.
func (c *File) checkReach() error {
	if host, _, err := net.SplitHostPort(c.Node.Listen); err == nil && !c.Node.TLS.Set() && !isLoopback(host) {
		return fmt.Errorf("node: listen %s can be reached from elsewhere, so it needs tls: make certificates (graphvol cert), or listen on 127.0.0.1", c.Node.Listen)
	}
	for key, text := range map[string]string{"listen": c.Etcd.Listen, "client": c.Etcd.Client} {
		if text == "" {
			continue
		}
		if err := CheckURL(text); err != nil {
			return fmt.Errorf("etcd: %s %w", key, err)
		}
	}
	return nil
}

// CheckURL refuses what can't be where an etcd is reached.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Port() == "", u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q: write it as https://HOST:PORT", text)
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return fmt.Errorf("%s can be reached from elsewhere, so it needs https", text)
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (m *Metadata) check() error {
	n := 0
	for _, given := range []bool{len(m.Command) > 0, m.File != "", m.Postgres != nil} {
		if given {
			n++
		}
	}
	switch {
	case n > 1:
		return errors.New("metadata: one of command, file and postgres can be given")
	case len(m.Command) > 0 && !filepath.IsAbs(m.Command[0]):
		return fmt.Errorf("metadata: command %q: only absolute paths are taken", m.Command[0])
	case m.Postgres != nil && (m.Postgres.DSN == "" || m.Postgres.Query == ""):
		return errors.New("metadata: postgres needs dsn and query")
	case m.Timeout < 0:
		return errors.New("metadata: timeout can't be negative")
	}
	return nil
}

// Set tells whether there is anything to read.
func (m *Metadata) Set() bool { return len(m.Command) > 0 || m.File != "" || m.Postgres != nil }

func (h *Hooks) check() error {
	for _, hook := range append(h.Pre[:len(h.Pre):len(h.Pre)], h.Post...) {
		switch {
		case len(hook.Command) == 0 || hook.Command[0] == "":
			return errors.New("hooks: a hook has no command")
		case !filepath.IsAbs(hook.Command[0]):
			return fmt.Errorf("hooks: %s: only absolute paths are taken", hook.Command[0])
		case hook.Timeout < 0:
			return fmt.Errorf("hooks: the timeout of %s can't be negative", hook.Command[0])
		}
	}
	return nil
}
