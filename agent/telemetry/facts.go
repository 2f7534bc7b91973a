package telemetry

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ReadTimeout is how long facts may take: Prometheus itself waits for 10 s if nobody says otherwise.
const ReadTimeout = 5 * time.Second

// Facts are what is so on a node at a moment. Zero times, nil pointers and nil maps are left out.
type Facts struct {
	Volumes            []VolumeFacts
	Cluster            *ClusterFacts // nil: etcd can't be reached, or there is no cluster
	Coordinator        bool          // this node is it
	EtcdUp             bool
	Peers              []PeerFacts
	ClockOffset        *time.Duration // how far this machine's clock is ahead
	ClockError         *time.Duration // how much more it may be, in either direction
	Paused             bool           // no snapshots are taken, because of the clock for example
	CertificateExpires time.Time
}

// VolumeFacts are one volume's.
type VolumeFacts struct {
	Volume     string
	Up         bool // it is mounted and answers; otherwise only Volume and Problem count
	Problem    bool // it isn't what it should be
	Epoch      uint64
	DirtyBytes int64
	StoreBytes int64
	Pending    int64            // snapshots that are being stored
	Snapshots  map[string]int64 // by state
	Newest     time.Time        // the barrier of the newest complete snapshot
	Copies     []CopyFacts
}

// CopyFacts are those of a copy of a volume's store.
type CopyFacts struct {
	Name            string
	Error           bool  // its last round failed
	Behind          int64 // complete snapshots that it lacks
	PendingBytes    int64 // still to be sent in the running round
	DegradedObjects int64
	Problems        int64 // that scrubs found and that aren't mended
	Synced          time.Time
}

// ClusterFacts are what etcd knows; every node that reaches it says the same.
type ClusterFacts struct {
	Snapshots map[string]int64 // by state
	Newest    time.Time        // when the newest complete one was taken
	Queue     int64            // snapshots that wait to be taken or tried again
}

// PeerFacts are those of another node, as this one sees it.
type PeerFacts struct {
	Peer      string
	State     string    // alive, suspect, unreachable or dead
	Heard     time.Time // its last sign of life
	RoundTrip *time.Duration
}

func peerStates() []string { return []string{"alive", "suspect", "unreachable", "dead"} }

// factCollector asks for facts when Prometheus asks for metrics.
type factCollector struct {
	read    func(context.Context) Facts
	version string
}

// Describe says nothing, which makes the collector an unchecked one: its metrics are made for the moment.
func (c *factCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *factCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), ReadTimeout)
	defer cancel()
	f := c.read(ctx)
	g := gauges(ch)
	g.add("graphvol_build_info", "What program the agent runs; always 1.", 1, "version", c.version)
	g.add("graphvol_coordinator", "Whether this node is the cluster's coordinator.", oneIf(f.Coordinator))
	g.add("graphvol_etcd_up", "Whether this node reaches etcd.", oneIf(f.EtcdUp))
	g.add("graphvol_snapshots_paused", "Whether no snapshots are taken at the moment, because of the clock for example.", oneIf(f.Paused))
	g.time("graphvol_certificate_expiry_timestamp_seconds", "When the node's certificate ends.", f.CertificateExpires)
	g.duration("graphvol_clock_offset_seconds", "How far this machine's clock is ahead of the right time.", f.ClockOffset)
	g.duration("graphvol_clock_error_seconds", "How much graphvol_clock_offset_seconds may be wrong, in either direction.", f.ClockError)
	for _, v := range f.Volumes {
		g.volume(v)
	}
	for _, p := range f.Peers {
		g.peer(p)
	}
	if f.Cluster != nil {
		g.cluster(f.Cluster)
	}
}

type gauges chan<- prometheus.Metric

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// add sends a gauge with labels and their values.
func (g gauges) add(name, help string, v float64, labels ...string) {
	var names, values []string
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, label(labels[i+1]))
	}
	g <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), prometheus.GaugeValue, v, values...)
}

func (g gauges) time(name, help string, t time.Time, labels ...string) {
	if !t.IsZero() {
		g.add(name, help, float64(t.UnixMilli())/1000, labels...)
	}
}

func (g gauges) duration(name, help string, d *time.Duration, labels ...string) {
	if d != nil {
		g.add(name, help, d.Seconds(), labels...)
	}
}

func (g gauges) volume(v VolumeFacts) {
	l := []string{"volume", v.Volume}
	g.add("graphvol_volume_up", "Whether the volume is mounted and answers.", oneIf(v.Up), l...)
	g.add("graphvol_volume_problem", "Whether the volume isn't what it should be; graphvol status says why.", oneIf(v.Problem), l...)
	if !v.Up {
		return
	}
	g.add("graphvol_volume_epoch", "The number of the running epoch.", float64(v.Epoch), l...)
	g.add("graphvol_volume_dirty_bytes", "What has changed since the last snapshot.", float64(v.DirtyBytes), l...)
	g.add("graphvol_volume_store_bytes", "The size of the store.", float64(v.StoreBytes), l...)
	g.add("graphvol_volume_pending_snapshots", "Snapshots that are being stored, or wait for that.", float64(v.Pending), l...)
	for state, n := range v.Snapshots {
		g.add("graphvol_volume_snapshots", "Snapshots of the volume by state.", float64(n), "volume", v.Volume, "state", state)
	}
	g.time("graphvol_volume_newest_snapshot_timestamp_seconds", "The moment that the newest complete snapshot shows.", v.Newest, l...)
	for _, c := range v.Copies {
		l := []string{"volume", v.Volume, "copy", c.Name}
		g.add("graphvol_copy_error", "Whether the copy's last round failed.", oneIf(c.Error), l...)
		g.add("graphvol_copy_behind_snapshots", "Complete snapshots that the copy lacks.", float64(c.Behind), l...)
		g.add("graphvol_copy_pending_bytes", "What the running round has still to send.", float64(c.PendingBytes), l...)
		g.add("graphvol_copy_degraded_objects", "Objects that are not on all the targets that should have a part of them.", float64(c.DegradedObjects), l...)
		g.add("graphvol_copy_scrub_problems", "What scrubs have found damaged in the copy, and not mended.", float64(c.Problems), l...)
		g.time("graphvol_copy_synced_timestamp_seconds", "When the copy last had everything.", c.Synced, l...)
	}
}

func (g gauges) peer(p PeerFacts) {
	for _, state := range peerStates() {
		g.add("graphvol_peer_state", "What another node is judged to be: 1 for that state, 0 for all others.", oneIf(state == p.State), "peer", p.Peer, "state", state)
	}
	g.time("graphvol_peer_heard_timestamp_seconds", "The last sign of life of another node.", p.Heard, "peer", p.Peer)
	g.duration("graphvol_peer_round_trip_seconds", "How long the last answered probe of another node took.", p.RoundTrip, "peer", p.Peer)
}

func (g gauges) cluster(c *ClusterFacts) {
	for state, n := range c.Snapshots {
		g.add("graphvol_cluster_snapshots", "Snapshots of the cluster by state.", float64(n), "state", state)
	}
	g.time("graphvol_cluster_newest_snapshot_timestamp_seconds", "When the newest complete snapshot of the cluster was taken.", c.Newest)
	g.add("graphvol_cluster_queue_length", "Snapshots of the cluster that wait to be taken, or to be tried again.", float64(c.Queue))
}
