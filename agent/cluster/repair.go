package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"graphvol/agent/api"

	"google.golang.org/grpc"
)

// Finding is something that records and nodes don't agree on.
type Finding struct {
	Snapshot, ID string // of the cluster; ID may be empty
	Node, Volume string // may be empty
	Problem      string
	Done         string // what was done about it; empty: nothing
}

// Repaired is what Repair has found.
type Repaired struct {
	Findings []Finding
	Away     []string // nodes that could not be asked
}

// vector is what is there of snapshots of the cluster: the states of volumes' snapshots, by node, volume and id. It is the data's side; the records are the other.
type vector map[string]map[string]map[string]*api.SnapshotInfo

// repairing is one Repair.
type repairing struct {
	*Coordinator
	ctx     context.Context
	lead    Leadership
	dryRun  bool
	records []Record
	has     vector
	away    map[string]bool
	res     Repaired

	manifests map[string]*Manifest // of those that have no record
	texts     map[string][]byte
}

// Repair compares the records with what the nodes have (S13), so that nobody takes for the newest state what isn't there:
//
//   - a complete one of which a volume has lost its part is damaged from then on, and complete again when the part is back
//   - a manifest in a store says that a snapshot was complete; if it has no record, since etcd was lost, it gets one
//   - volumes' snapshots that no record knows are only told
//
// Of what nodes have that are away nothing is decided.
func (c *Coordinator) Repair(ctx context.Context, dryRun bool) (Repaired, error) {
	_, l, err := c.leadership()
	if err != nil {
		return Repaired{}, err
	}
	r := &repairing{
		Coordinator: c, ctx: ctx, lead: l, dryRun: dryRun, has: make(vector), away: make(map[string]bool),
		manifests: make(map[string]*Manifest), texts: make(map[string][]byte),
	}
	if r.records, err = c.Records.List(ctx); err != nil {
		return r.res, err
	}
	if err := r.askAll(); err != nil {
		return r.res, err
	}
	for i := range r.records {
		if err := r.record(&r.records[i]); err != nil {
			return r.res, err
		}
	}
	if err := r.enterAll(); err != nil {
		return r.res, err
	}
	r.strays()
	return r.res, nil
}

// askAll asks all nodes that are there, and notes which of those that records name are not.
func (r *repairing) askAll() error {
	there, err := r.Members(r.ctx)
	if err != nil {
		return err
	}
	req := &api.InventoryRequest{}
	for _, rec := range r.records {
		req.Known = append(req.Known, rec.ID)
		for _, n := range rec.Nodes {
			r.away[n.Node] = true
		}
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, m := range there {
		all.Go(func() {
			res, err := r.inventory(m, req)
			mu.Lock()
			defer mu.Unlock()
			r.away[m.Name] = err != nil
			if err != nil {
				r.Log.WarnContext(r.ctx, "a node doesn't tell what it has", "node", m.Name, "err", err)
				return
			}
			r.enter(m.Name, res)
		})
	}
	all.Wait()
	for name, away := range r.away {
		if away {
			r.res.Away = append(r.res.Away, name)
		}
	}
	slices.Sort(r.res.Away)
	return nil
}

func (r *repairing) inventory(m Member, req *api.InventoryRequest) (*api.InventoryResponse, error) {
	client, err := r.Dial(m)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.ctx, callTimeout)
	defer cancel()
	return client.Inventory(ctx, req, grpc.WaitForReady(true))
}

// enter notes what a node has told.
func (r *repairing) enter(node string, res *api.InventoryResponse) {
	r.has[node] = make(map[string]map[string]*api.SnapshotInfo)
	for _, v := range res.GetVolumes() {
		if v.GetError() != "" {
			r.res.Findings = append(r.res.Findings, Finding{Node: node, Volume: v.GetVolume(), Problem: "it doesn't tell what it has: " + v.GetError()})
			r.away[node] = true
		}
		snaps := make(map[string]*api.SnapshotInfo)
		for _, s := range v.GetSnapshots() {
			snaps[s.GetId()] = s
		}
		r.has[node][v.GetVolume()] = snaps
		for _, text := range v.GetManifests() {
			m, err := ParseManifest(text)
			if err != nil {
				r.res.Findings = append(r.res.Findings, Finding{Node: node, Volume: v.GetVolume(), Problem: err.Error()})
				continue
			}
			r.manifests[m.ID], r.texts[m.ID] = m, text
		}
	}
}

// lacks tells what is missing of a snapshot's parts; known is false if a node that could tell is away.
func (r *repairing) lacks(rec *Record) (missing []Finding, known bool) {
	known = true
	for _, n := range rec.Nodes {
		if r.away[n.Node] {
			known = false
			continue
		}
		for _, v := range n.Volumes {
			f := Finding{Snapshot: rec.Name, ID: rec.ID, Node: n.Node, Volume: v.Volume}
			switch snap := r.has[n.Node][v.Volume][v.Snapshot]; {
			case snap == nil:
				f.Problem = "its part is not there"
			case snap.GetState() != "complete":
				f.Problem = "its part is " + snap.GetState()
			case v.Manifest != "" && snap.GetManifestSha256() != v.Manifest:
				f.Problem = "its part is another one than was recorded"
			default:
				continue
			}
			missing = append(missing, f)
		}
	}
	return missing, known
}

// record compares one record with what is there.
func (r *repairing) record(rec *Record) error {
	if rec.State != StateComplete && rec.State != StateDamaged {
		return nil
	}
	missing, known := r.lacks(rec)
	was := rec.State
	switch {
	case was == StateComplete && len(missing) > 0:
		var why []string
		for i := range missing {
			missing[i].Done = "the snapshot is called damaged"
			why = append(why, fmt.Sprintf("node %s: volume %s: %s", missing[i].Node, missing[i].Volume, missing[i].Problem))
		}
		r.res.Findings = append(r.res.Findings, missing...)
		rec.State, rec.Error = StateDamaged, strings.Join(why, "; ")
	case was == StateDamaged && len(missing) == 0 && known:
		r.res.Findings = append(r.res.Findings, Finding{Snapshot: rec.Name, ID: rec.ID, Problem: "what was lost of it is back", Done: "the snapshot is called complete"})
		rec.State, rec.Error = StateComplete, ""
	default:
		return nil
	}
	if r.dryRun {
		return nil
	}
	return r.Records.put(r.ctx, r.lead, rec, was)
}

// enterAll gives records to snapshots of which only the manifests are left.
func (r *repairing) enterAll() error {
	for id, m := range r.manifests {
		rec := recordOf(m, r.texts[id])
		missing, known := r.lacks(&rec)
		f := Finding{Snapshot: m.Name, ID: id, Problem: "etcd has no record of it"}
		switch {
		case !known:
			f.Problem += ", and not all its nodes are there to tell whether it is whole"
		case len(missing) > 0:
			f.Problem += fmt.Sprintf(", and it isn't whole (node %s: volume %s: %s)", missing[0].Node, missing[0].Volume, missing[0].Problem)
		default:
			f.Done = "it has one again"
		}
		r.res.Findings = append(r.res.Findings, f)
		r.records = append(r.records, rec)
		if f.Done == "" || r.dryRun {
			continue
		}
		if err := r.Records.put(r.ctx, r.lead, &rec, ""); err != nil && !errors.Is(err, ErrNotCoordinator) {
			return err
		}
	}
	return nil
}

// recordOf is the record of a complete snapshot, from its manifest.
func recordOf(m *Manifest, text []byte) Record {
	rec := Record{
		ID: m.ID, Name: m.Name, State: StateComplete, Created: m.Created, Ended: m.Completed, Manifest: text,
		Hold: time.Duration(m.LongestHold * float64(time.Millisecond)),
	}
	for _, n := range m.Topology.Nodes {
		part := NodePart{Node: n.Name, Address: n.Address, Metadata: m.Metadata[n.Name]}
		for _, v := range n.Volumes {
			part.Volumes = append(part.Volumes, VolumePart{
				Volume: v.Name, Snapshot: v.Snapshot, State: StateComplete, Manifest: v.Manifest, Checksum: v.Checksum, Files: v.Files, Bytes: v.Bytes, Copies: v.Copies,
			})
		}
		rec.Nodes = append(rec.Nodes, part)
	}
	return rec
}

// strays tells of volumes' snapshots that belong to nothing.
func (r *repairing) strays() {
	type part struct{ node, volume, snapshot string }
	known := make(map[part]bool)
	for _, rec := range r.records {
		for _, n := range rec.Nodes {
			for _, v := range n.Volumes {
				known[part{n.Node, v.Volume, v.Snapshot}] = true
			}
		}
	}
	for node, volumes := range r.has {
		for volume, snaps := range volumes {
			for id, s := range snaps {
				if s.GetState() == StateComplete && !known[part{node, volume, id}] {
					r.res.Findings = append(r.res.Findings, Finding{Snapshot: s.GetName(), Node: node, Volume: volume, Problem: "it was taken for a snapshot of the cluster that never became complete, or is gone: graphvol delete removes it"})
				}
			}
		}
	}
	slices.SortFunc(r.res.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Snapshot, b.Snapshot), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Volume, b.Volume))
	})
}
