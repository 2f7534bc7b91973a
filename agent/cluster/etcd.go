package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"graphvol/agent/config"
)

const (
	etcdDir     = "etcd"     // below the agent's state
	etcdSocket  = "etcd:0"   // beside it; a name that isn't longer than the agent's own socket's, as there is a limit
	etcdLog     = "etcd.log" // below its log directory
	dialTimeout = 5 * time.Second
	// aloneURL is where the peers of an etcd without peers would be.
	aloneURL = "http://127.0.0.1:0"
)

// Etcd is a connection to etcd, and that itself if it runs in this process.
type Etcd struct {
	*clientv3.Client
	own     *embed.Etcd // nil: it runs elsewhere
	url     string      // of the own one, for the other members
	closing atomic.Bool
}

// ErrRemoved: the node was removed from the members of the agents' own etcd.
var ErrRemoved = errors.New("this node was removed from the members of the cluster's etcd")

// OpenEtcd connects to the configured etcd, or starts this node's member of the agents' own, whose files are in the state directory. It doesn't wait until that answers:
// other members may have to start first. creds are for https; nil: there are none.
func OpenEtcd(node, state string, c config.Etcd, creds credentials.TransportCredentials) (*Etcd, error) {
	if len(c.Endpoints) > 0 {
		return connect(c, creds)
	}
	return start(node, state, c)
}

func connect(c config.Etcd, creds credentials.TransportCredentials) (*Etcd, error) {
	cfg := clientv3.Config{
		Endpoints: c.Endpoints, DialTimeout: dialTimeout, DialKeepAliveTime: dialTimeout, DialKeepAliveTimeout: dialTimeout, Logger: zap.NewNop(),
	}
	secure, err := isSecure(c.Endpoints)
	if err != nil {
		return nil, err
	}
	switch {
	case secure && creds == nil:
		return nil, fmt.Errorf("etcd at %s needs certificates: name them (etcd: tls, or node: tls)", strings.Join(c.Endpoints, ", "))
	case secure:
		cfg.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(creds)}
	}
	cl, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %s: %w", strings.Join(c.Endpoints, ", "), err)
	}
	return &Etcd{Client: cl}, nil
}

// isSecure tells whether the URLs are https: all of them, or none.
func isSecure(endpoints []string) (bool, error) {
	n := 0
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Port() == "" || u.Scheme != "http" && u.Scheme != "https" {
			return false, fmt.Errorf("etcd: endpoint %q: write it as https://HOST:PORT", e)
		}
		if u.Scheme == "https" {
			n++
		}
	}
	if n > 0 && n < len(endpoints) {
		return false, fmt.Errorf("etcd: endpoints %s: either all are https or none is", strings.Join(endpoints, ", "))
	}
	return n > 0, nil
}

func start(node, state string, c config.Etcd) (*Etcd, error) {
	cfg, err := memberConfig(node, state, c)
	if err != nil {
		return nil, fmt.Errorf("the agent's own etcd: %w", err)
	}
	if err := prepareStart(cfg, node, c); err != nil {
		return nil, fmt.Errorf("the agent's own etcd isn't started: %w", err)
	}
	own, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("the agent's own etcd in %s can't be started: %w; see %s", cfg.Dir, err, cfg.LogOutputs[0])
	}
	return &Etcd{Client: v3client.New(own.Server), own: own, url: cfg.AdvertisePeerUrls[0].String()}, nil
}

// memberConfig is that of this node's member. Clients in this process need no address.
func memberConfig(node, state string, c config.Etcd) (*embed.Config, error) {
	logs := filepath.Join(state, "log")
	for _, dir := range []string{state, filepath.Join(state, etcdDir), logs} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = node, filepath.Join(state, etcdDir)
	cfg.LogLevel, cfg.LogOutputs = "warn", []string{filepath.Join(logs, etcdLog)}
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	cfg.TickMs, cfg.ElectionMs = 100, 1000
	cfg.StrictReconfigCheck = true
	peer, client := c.Listen, c.Client
	if peer == "" {
		peer = aloneURL
	}
	if client == "" {
		client = "unix://" + filepath.Join(state, etcdSocket)
	}
	var err error
	if cfg.ListenPeerUrls, err = parseURLs(peer); err != nil {
		return nil, err
	}
	if cfg.ListenClientUrls, err = parseURLs(client); err != nil {
		return nil, err
	}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	advertised := peer
	if u := c.Members[node]; u != "" {
		advertised = u
	}
	if cfg.AdvertisePeerUrls, err = parseURLs(advertised); err != nil {
		return nil, err
	}
	members := []string{node + "=" + advertised}
	for name, u := range c.Members {
		if name != node {
			members = append(members, name+"="+u)
		}
	}
	cfg.InitialCluster = strings.Join(members, ",")
	if c.TLS.Set() {
		files := transport.TLSInfo{CertFile: c.TLS.Cert, KeyFile: c.TLS.Key, TrustedCAFile: c.TLS.CA, ClientCertAuth: true}
		cfg.PeerTLSInfo, cfg.ClientTLSInfo = files, files
	}
	return cfg, nil
}

func parseURLs(text string) ([]url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	return []url.URL{*u}, nil
}

// Own tells whether this node has a member of the agents' own.
func (e *Etcd) Own() bool { return e.own != nil }

// Wait returns when the agents' own etcd takes part in its cluster, or at once if it runs elsewhere.
func (e *Etcd) Wait(ctx context.Context) error {
	if e.own == nil {
		return nil
	}
	select {
	case <-e.own.Server.ReadyNotify():
		return nil
	case <-e.own.Server.StopNotify():
		return cmp.Or(e.Removed(), errors.New("the agent's own etcd has stopped"))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// MemberNames gives the names of the members of the agents' own etcd that have come, as this node knows them; none if it runs elsewhere.
func (e *Etcd) MemberNames() (all []string) {
	if e.own == nil {
		return nil
	}
	for _, m := range e.own.Server.Cluster().Members() {
		all = append(all, m.Name)
	}
	return all
}

// Removed gives an error with ErrRemoved if the agents' own etcd has stopped, since this node was removed from its members.
func (e *Etcd) Removed() error {
	if e.own == nil || e.closing.Load() {
		return nil
	}
	select {
	case <-e.own.Server.StopNotify(): // nothing else stops it
		name := e.own.Config().Name
		return fmt.Errorf("%w, and its volumes stay mounted; to have it back: on another node, graphvol cluster member add %s %s; then restart this agent", ErrRemoved, name, e.url)
	default:
		return nil
	}
}

// Close ends the connection, and the etcd in this process.
func (e *Etcd) Close() error {
	e.closing.Store(true)
	err := e.Client.Close()
	if e.own != nil {
		e.own.Close()
		err = nil // a client in memory has no connection that could fail
	}
	return err
}
