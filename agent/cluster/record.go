package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"graphvol/agent/traceid"
)

// States of a Record.
const (
	StatePreparing = "preparing" // nothing is decided, so nothing remains if it ends here
	StateCut       = "cut"       // every volume's cut lay inside its hold, and all of them at one moment; they are being stored
	StateComplete  = "complete"  // all are stored
	StateFailed    = "failed"
	StateDamaged   = "damaged"  // it was complete, and a volume has lost its part
	StateDeleting  = "deleting" // it was complete or failed, and isn't gone from all nodes yet
)

// Record is a snapshot of the cluster as etcd has it.
type Record struct {
	ID       string        `json:"id"`
	Name     string        `json:"name"`
	State    string        `json:"state"`
	Term     int64         `json:"term"` // of the coordinator that began it
	Created  time.Time     `json:"created"`
	Ended    time.Time     `json:"ended,omitzero"` // complete or failed
	Hold     time.Duration `json:"hold,omitempty"` // the longest
	Error    string        `json:"error,omitempty"`
	Trace    string        `json:"traceparent,omitempty"` // in which it was taken
	Nodes    []NodePart    `json:"nodes"`
	Manifest Text          `json:"manifest,omitempty"` // with complete
}

// Traced gives a context that belongs to the trace in which it was taken.
func (r *Record) Traced(ctx context.Context) context.Context { return traceid.With(ctx, r.Trace) }

// NodePart is what one node has of it.
type NodePart struct {
	Node        string          `json:"node"`
	Address     string          `json:"address"`
	Volumes     []VolumePart    `json:"volumes,omitempty"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
	ClockOffset *time.Duration  `json:"clock_offset,omitempty"`
}

// end notes what has become of the volumes' snapshots. What only the cut has told stays.
func (n *NodePart) end(volumes []VolumePart) {
	for i, v := range volumes {
		for _, before := range n.Volumes {
			if before.Volume == v.Volume {
				volumes[i].Copies = before.Copies
				volumes[i].Hold = max(v.Hold, before.Hold)
			}
		}
	}
	n.Volumes = volumes
}

// VolumePart is one volume's snapshot.
type VolumePart struct {
	Volume   string        `json:"volume"`
	Snapshot string        `json:"snapshot"` // id
	State    string        `json:"state"`
	Hold     time.Duration `json:"hold"`
	Manifest string        `json:"manifest_sha256,omitempty"`
	Checksum string        `json:"checksum_sha256,omitempty"`
	Files    int64         `json:"files,omitempty"`
	Bytes    int64         `json:"bytes,omitempty"`
	Error    string        `json:"error,omitempty"`
	Copies   []Copy        `json:"copies,omitempty"`
}

// Copy is a place that a volume's store is copied to. It holds no secrets.
type Copy struct {
	Targets   []string `json:"targets"`           // URLs
	Erasure   string   `json:"erasure,omitempty"` // "K+M"; empty: not spread
	Encrypted bool     `json:"encrypted,omitempty"`
}

// Open tells whether nothing final is known of it.
func (r *Record) Open() bool { return r.State == StatePreparing || r.State == StateCut }

// Text is bytes that are kept as they are: JSON in a field of JSON would be laid out anew.
type Text []byte

// MarshalText implements encoding.TextMarshaler.
func (t Text) MarshalText() ([]byte, error) { return t, nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Text) UnmarshalText(p []byte) error {
	*t = slices.Clone(p)
	return nil
}

// clone is a copy that isn't changed when the original is.
func (r Record) clone() Record {
	r.Nodes = slices.Clone(r.Nodes)
	return r
}

// ErrExists: there is one of this name.
var ErrExists = errors.New("there is a snapshot of the cluster with this name already")

// Records are those of one cluster.
type Records struct {
	etcd *Etcd
	keys keys
}

// NewRecords gives the records of a cluster.
func NewRecords(etcd *Etcd, cluster string) *Records { return &Records{etcd, newKeys(cluster)} }

// List gives all, oldest first.
func (r *Records) List(ctx context.Context) ([]Record, error) {
	all, err := list[Record](ctx, r.etcd, r.keys.snapshots())
	slices.SortStableFunc(all, func(a, b Record) int { return a.Created.Compare(b.Created) })
	return all, err
}

// put writes a record, if the writer is the coordinator still. was is the state that it must have in etcd; empty: it isn't there. What is written already, by an earlier put whose answer was
// lost, is no error.
func (r *Records) put(ctx context.Context, l Leadership, rec *Record, was string) error {
	key := r.keys.snapshot(rec.ID)
	old, err := bounded(ctx, r.etcd, func(ctx context.Context) (*clientv3.GetResponse, error) { return r.etcd.Get(ctx, key) })
	if err != nil {
		return err
	}
	var before Record
	cmp := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	if len(old.Kvs) > 0 {
		if err := json.Unmarshal(old.Kvs[0].Value, &before); err != nil {
			return fmt.Errorf("%s in etcd: %w", key, err)
		}
		cmp = clientv3.Compare(clientv3.ModRevision(key), "=", old.Kvs[0].ModRevision)
	}
	value, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if len(old.Kvs) > 0 && bytes.Equal(old.Kvs[0].Value, value) {
		return nil
	}
	if before.State != was {
		return fmt.Errorf("the record of %s is %q where it should be %q: %w", rec.Name, before.State, was, ErrNotCoordinator)
	}
	res, err := bounded(ctx, r.etcd, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return r.etcd.Txn(ctx).If(l.holds(), cmp).Then(clientv3.OpPut(key, string(value))).Commit()
	})
	if err == nil && !res.Succeeded {
		err = ErrNotCoordinator
	}
	return err
}

// newID is a random id, as snapshots of volumes have.
func newID() string {
	p := make([]byte, 16)
	rand.Read(p)
	return hex.EncodeToString(p)
}
