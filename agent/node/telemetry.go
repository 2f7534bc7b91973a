package node

import (
	"context"
	"time"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/telemetry"
)

// telemetryBound is for what is on its way when the agent ends.
const telemetryBound = 2 * time.Second

// startTelemetry begins to trace and to measure. stop sends what is left.
func (n *Node) startTelemetry() (stop func(), err error) {
	n.tracing, err = telemetry.StartTracing(n.background.ctx, telemetry.TraceOptions{
		URL: n.boot.Node.Traces, Node: n.name, Cluster: n.boot.Cluster.Name, Version: n.opts.Version,
		Quiet: []string{api.Node_Probe_FullMethodName, api.Node_ProbeVia_FullMethodName, "/grpc.health.v1.Health/"},
	}, n.log)
	if err != nil {
		return nil, err
	}
	n.metrics = telemetry.NewMetrics(n.opts.Version, n.facts)
	return func() {
		if err := closeWithin(telemetryBound, n.tracing.Close); err != nil {
			n.log.Warn("closing traces", "err", err)
		}
	}, nil
}

// serveMetrics opens the page for Prometheus, when there is something to tell.
func (n *Node) serveMetrics() (stop func(), err error) {
	if n.boot.Node.Metrics == "" {
		return func() {}, nil
	}
	page, err := n.metrics.Serve(n.boot.Node.Metrics, n.log)
	if err != nil {
		return nil, err
	}
	n.log.Info("metrics are served", "address", page.Addr())
	return func() {
		if err := closeWithin(telemetryBound, page.Close); err != nil {
			n.log.Warn("closing the page with metrics", "err", err)
		}
	}, nil
}

func closeWithin(d time.Duration, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return fn(ctx)
}

// measured announces what counters there will be: Prometheus sees no growth in one that wasn't there.
func (n *Node) measured(c *current) {
	for _, v := range c.volumes {
		n.metrics.Volume(v.label)
	}
	for j, text := range c.jobs() {
		if text != "" {
			n.metrics.Schedule(j.String())
		}
	}
}

// facts are what is so now, for Prometheus.
func (n *Node) facts(ctx context.Context) telemetry.Facts {
	f := telemetry.Facts{Coordinator: n.coordinator.Leads(), EtcdUp: n.member.Err() == nil, ClockOffset: n.clockOffset()}
	_, f.Paused = n.clock.Paused()
	if e, ok := n.clock.Newest(); ok && e.Known {
		f.ClockError = &e.Error
	}
	if n.certs != nil {
		f.CertificateExpires = n.certs.Expires()
	}
	for _, v := range n.now.Load().volumes {
		f.Volumes = append(f.Volumes, v.facts(ctx))
	}
	if all, err := n.records.List(ctx); err == nil {
		f.Cluster = clusterFacts(all)
	}
	now := time.Now()
	for _, v := range n.alive.table.All(now) {
		if v.Name != n.name {
			p := telemetry.PeerFacts{Peer: v.Name, State: string(v.State), Heard: now.Add(-v.Silent)}
			if v.RoundTrip > 0 {
				p.RoundTrip = &v.RoundTrip
			}
			f.Peers = append(f.Peers, p)
		}
	}
	return f
}

func clusterFacts(all []cluster.Record) *telemetry.ClusterFacts {
	c := &telemetry.ClusterFacts{Snapshots: make(map[string]int64)}
	for _, r := range all {
		c.Snapshots[r.State]++
		if r.State == cluster.StateComplete {
			c.Newest = r.Created
		}
		if r.Open() {
			c.Queue++
		}
	}
	return c
}

// facts asks the volume's server.
func (v *volume) facts(ctx context.Context) telemetry.VolumeFacts {
	f := telemetry.VolumeFacts{Volume: v.label}
	err := v.call(ctx, func(c *agent.Client) error {
		st, err := c.Status(ctx, &api.StatusRequest{})
		if err != nil {
			return err
		}
		f.Problem, f.Epoch, f.DirtyBytes, f.StoreBytes, f.Pending = st.GetProblem() != "", st.GetEpoch(), st.GetDirtyBytes(), st.GetStoreBytes(), st.GetPending()
		f.Snapshots = st.GetStates()
		if st.GetNewest() != nil {
			f.Newest = st.GetNewest().AsTime()
		}
		for _, r := range st.GetRemotes() {
			f.Copies = append(f.Copies, copyFacts(r, st.GetStates()["complete"]))
		}
		return nil
	})
	f.Up = err == nil
	return f
}

func copyFacts(r *api.RemoteInfo, complete int64) telemetry.CopyFacts {
	c := telemetry.CopyFacts{
		Name: r.GetName(), Error: r.GetError() != "", Behind: max(complete-r.GetSnapshots(), 0), PendingBytes: max(r.GetTotalBytes()-r.GetDoneBytes(), 0),
		DegradedObjects: r.GetDegraded(), Problems: r.GetProblems(),
	}
	if r.GetSynced() != nil {
		c.Synced = r.GetSynced().AsTime()
	}
	return c
}

// ended counts a snapshot of the cluster.
func (n *Node) ended(rec cluster.Record) {
	n.metrics.ClusterSnapshot(rec.State == cluster.StateComplete)
}

// sealed counts what has become of a volume's snapshot.
func (n *Node) sealed(p *api.VolumePart) {
	s := p.GetSnapshot()
	if s.GetState() != "complete" {
		n.metrics.SealFailed(p.GetVolume())
		return
	}
	n.metrics.Sealed(p.GetVolume(), s.GetSeal().AsDuration(), s.GetDirtyBytes(), s.GetStoredBytes())
}
