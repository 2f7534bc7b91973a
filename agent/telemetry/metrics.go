package telemetry

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are an agent's metrics. All methods may be called at the same time.
type Metrics struct {
	registry *prometheus.Registry

	pause, hold           prometheus.ObserverVec
	seal                  prometheus.ObserverVec
	sealDirty, sealStored *prometheus.CounterVec
	sealFailed            *prometheus.CounterVec
	cluster               *prometheus.CounterVec
	heartbeats            *prometheus.CounterVec
	skipped               *prometheus.CounterVec
	hooksFailed           *prometheus.CounterVec
}

// Buckets: a pause is milliseconds, or something is wrong; storing takes from a tenth of a second to hours.
var (
	pauseBuckets = []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5}
	sealBuckets  = []float64{.1, .2, .5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400}
)

const (
	resultComplete = "complete"
	resultFailed   = "failed"
	reasonBusy     = "busy"
	reasonLate     = "late"
)

// NewMetrics makes the metrics of an agent. read tells what is so, each time that Prometheus asks; it should answer within ReadTimeout, and what isn't known by then is left out.
func NewMetrics(version string, read func(context.Context) Facts) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.pause = m.histogram("graphvol_pause_seconds", "How long the changes of a volume waited for a snapshot.", pauseBuckets, "volume")
	m.hold = m.histogram("graphvol_hold_seconds", "How long the gate of a volume was closed for a snapshot of the cluster.", pauseBuckets, "volume")
	m.seal = m.histogram("graphvol_seal_seconds", "How long it took to store a snapshot of a volume.", sealBuckets, "volume")
	m.sealDirty = m.counter("graphvol_seal_dirty_bytes_total", "Blocks that were dirty in stored snapshots.", "volume")
	m.sealStored = m.counter("graphvol_seal_stored_bytes_total", "What stored snapshots have added to the store.", "volume")
	m.sealFailed = m.counter("graphvol_seal_failures_total", "Snapshots of a volume that failed after they had begun.", "volume")
	m.cluster = m.counter("graphvol_cluster_snapshots_ended_total", "Snapshots of the cluster that ended while this node was the coordinator, by result.", "result")
	m.heartbeats = m.counter("graphvol_heartbeats_total", "Probes of another node, by what they found: ok or failed.", "peer", "result")
	m.skipped = m.counter("graphvol_schedule_skipped_total", "Times of a schedule at which nothing was run, by reason: busy or late.", "schedule", "reason")
	m.hooksFailed = m.counter("graphvol_hook_failures_total", "Hooks that failed or took too long.", "volume", "phase")
	m.registry.MustRegister(&factCollector{read: read, version: version})
	for _, r := range []string{resultComplete, resultFailed} {
		m.cluster.WithLabelValues(r) // rates need a 0 to begin with
	}
	return m
}

func (m *Metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(h)
	return h
}

// Volume tells that there is a volume: its counters begin at 0, since Prometheus sees no growth in what wasn't there.
func (m *Metrics) Volume(volume string) {
	for _, h := range []prometheus.ObserverVec{m.pause, m.hold, m.seal} {
		h.WithLabelValues(label(volume))
	}
	for _, c := range []*prometheus.CounterVec{m.sealDirty, m.sealStored, m.sealFailed} {
		c.WithLabelValues(label(volume))
	}
	for _, phase := range []string{"pre", "post"} {
		m.hooksFailed.WithLabelValues(label(volume), phase)
	}
}

// Schedule does the same for a schedule.
func (m *Metrics) Schedule(schedule string) {
	for _, reason := range []string{reasonBusy, reasonLate} {
		m.skipped.WithLabelValues(label(schedule), reason)
	}
}

// Pause tells how long a snapshot paused a volume.
func (m *Metrics) Pause(volume string, d time.Duration) {
	m.pause.WithLabelValues(label(volume)).Observe(d.Seconds())
}

// Hold tells how long a volume's gate was closed for a snapshot of the cluster.
func (m *Metrics) Hold(volume string, d time.Duration) {
	m.hold.WithLabelValues(label(volume)).Observe(d.Seconds())
}

// Sealed tells that a volume's snapshot was stored: how long that took, how many bytes were dirty, and how many were stored.
func (m *Metrics) Sealed(volume string, d time.Duration, dirty, stored int64) {
	m.seal.WithLabelValues(label(volume)).Observe(d.Seconds())
	m.sealDirty.WithLabelValues(label(volume)).Add(float64(dirty))
	m.sealStored.WithLabelValues(label(volume)).Add(float64(stored))
}

// SealFailed tells that a volume's snapshot failed after it had begun.
func (m *Metrics) SealFailed(volume string) { m.sealFailed.WithLabelValues(label(volume)).Inc() }

// ClusterSnapshot tells that a snapshot of the cluster has ended; the coordinator calls it.
func (m *Metrics) ClusterSnapshot(complete bool) {
	result := resultFailed
	if complete {
		result = resultComplete
	}
	m.cluster.WithLabelValues(result).Inc()
}

// Heartbeat tells whether a probe of another node was answered.
func (m *Metrics) Heartbeat(peer string, answered bool) {
	ok, failed := m.heartbeats.WithLabelValues(label(peer), "ok"), m.heartbeats.WithLabelValues(label(peer), "failed")
	if answered {
		ok.Inc()
	} else {
		failed.Inc()
	}
}

// Skipped tells that runs of a schedule were skipped: since the one before went on (busy), or since they were noticed too late.
func (m *Metrics) Skipped(schedule string, n int, busy bool) {
	reason := reasonLate
	if busy {
		reason = reasonBusy
	}
	m.skipped.WithLabelValues(label(schedule), reason).Add(float64(n))
}

// HookFailed tells that a hook of a phase, pre or post, has failed.
func (m *Metrics) HookFailed(volume, phase string) {
	m.hooksFailed.WithLabelValues(label(volume), phase).Inc()
}

// label makes a value of what may be a path, and so any bytes: the library panics at those that aren't UTF-8.
func label(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
