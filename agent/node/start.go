package node

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/health"

	"graphvol/agent/cluster"
	"graphvol/agent/pki"
	"graphvol/internal/priority"
)

// run starts the parts, from what needs nothing to what needs all, and ends them the other way round when ctx ends.
func (n *Node) run(ctx context.Context) error {
	n.log.Info("the agent starts", "node", n.name, "version", n.opts.Version)
	// All writers wait while gates are closed; volumes' servers, which are started from here, are waited for always.
	if err := priority.Raise(); err != nil {
		n.log.Info("the agent runs with the usual priority, so holds may be longer on a busy machine", "err", err)
	}
	if err := n.openCertificates(); err != nil {
		return err
	}
	stopTelemetry, err := n.startTelemetry()
	if err != nil {
		return err
	}
	defer stopTelemetry()
	n.peers = newPeers(n.certs, n.tracing.DialOption())
	defer n.peers.close()
	n.health, n.clock, n.alive, n.schedules = health.NewServer(), n.newClock(), n.newAlive(), n.newSchedules()
	servers, err := n.listen()
	if err != nil {
		return err
	}
	stopServers := sync.OnceFunc(servers.stop)
	defer stopServers()
	// Volumes before the cluster: databases wait for them.
	n.removeAttached()
	n.recoverHooks(ctx)
	n.mountAll()
	if err := n.joinCluster(); err != nil {
		n.stopBeside()
		return err
	}
	defer n.leaveCluster()
	stopMetrics, err := n.serveMetrics()
	if err != nil {
		return err
	}
	defer stopMetrics()
	servers.serve(n.log)
	defer stopServers() // before the cluster is left
	defer n.health.Shutdown()
	if n.opts.Ready != nil {
		n.opts.Ready()
	}
	select {
	case <-ctx.Done():
		return nil
	case <-n.anew:
		return ErrStartAnew
	}
}

func (n *Node) openCertificates() (err error) {
	if !n.boot.Node.TLS.Set() {
		return nil
	}
	if n.certs, err = pki.Open(n.boot.Node.TLS, n.log); err != nil {
		return err
	}
	return n.certs.CheckNode(n.name)
}

// joinCluster begins to take part. That it hasn't come so far, since others have to start first, keeps nobody waiting.
func (n *Node) joinCluster() (err error) {
	c := n.boot.Etcd
	if !c.TLS.Set() {
		c.TLS = n.boot.Node.TLS
	}
	certs := n.certs
	if n.boot.Etcd.TLS.Set() {
		if certs, err = pki.Open(n.boot.Etcd.TLS, n.log); err != nil {
			return err
		}
	}
	roots := rootsOf(certs)
	if n.etcd, err = cluster.OpenEtcd(n.name, n.state, c, newEtcdTLS(certs, n.log)); err != nil {
		return err
	}
	n.records = cluster.NewRecords(n.etcd, n.boot.Cluster.Name)
	n.configs = cluster.NewConfigs(n.etcd, n.boot.Cluster.Name)
	n.etcdMembers = cluster.NewEtcdMembers(n.etcd, n.boot.Cluster.Name)
	n.coordinator = cluster.NewCoordinator(cluster.CoordinatorConfig{
		Records: n.records, Members: n.members, Dial: n.dialNode, Settings: n.settings, Why: n.alive.why, Gone: n.etcdMembers.Gone, Agree: n.agree, Trace: n.tracing.Start, Urgent: n.urgent, Ended: n.ended, Log: n.log,
	})
	self := cluster.Member{
		Name: n.name, Instance: instance(n.started), Address: n.address(), Version: n.opts.Version, Started: n.started.UTC(), Volumes: n.now.Load().labels(), Paths: n.now.Load().paths(),
	}
	n.member = cluster.Join(n.etcd, n.boot.Cluster.Name, self, n.coordinator.Lead, n.log)
	n.measured(n.now.Load())
	n.schedules.set(n.now.Load())
	n.beside(func(ctx context.Context) { n.etcd.Tend(ctx, n.log) })
	n.beside(n.follow)
	n.beside(n.followConfig)
	n.beside(n.clock.Run)
	n.beside(n.alive.run)
	if certs != nil && n.etcd.Own() {
		n.beside(func(ctx context.Context) { n.followRoots(ctx, certs, roots) })
	}
	return nil
}

func (n *Node) leaveCluster() {
	n.stopBeside()
	n.member.Close()
	if err := n.etcd.Close(); err != nil {
		n.log.Warn("closing etcd", "err", err)
	}
}

// beside runs something until the agent ends.
func (n *Node) beside(fn func(context.Context)) {
	n.background.Go(func() { fn(n.background.ctx) })
}

func (n *Node) stopBeside() {
	n.background.cancel()
	n.background.Wait()
}

// urgent has the agent run before others while gates are closed.
func (n *Node) urgent(ctx context.Context, bound time.Duration) (end func()) {
	end, err := priority.Urgent(bound)
	if err != nil {
		n.log.DebugContext(ctx, "a hold may be longer on a busy machine", "err", err)
	}
	return end
}
