package node

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/cluster"
	"graphvol/agent/graphmeta"
	"graphvol/agent/placement"
)

// restoring is a restore of the cluster.
type restoring struct {
	*Node
	req      *api.RestoreClusterRequest
	manifest *cluster.Manifest
	members  map[string]cluster.Member
	plan     *placement.Plan

	mu       sync.Mutex // held while something is sent
	stream   api.Cluster_RestoreServer
	progress map[placement.Volume]*api.Progress
}

// Restore implements the API. Whatever can be known to be wrong is said before anything is written.
func (s *clusterService) Restore(req *api.RestoreClusterRequest, stream api.Cluster_RestoreServer) error {
	r := &restoring{Node: s.Node, req: req, stream: stream, members: make(map[string]cluster.Member), progress: make(map[placement.Volume]*api.Progress)}
	if err := r.run(stream.Context()); err != nil {
		return statusOf(err)
	}
	return nil
}

func (r *restoring) run(ctx context.Context) error {
	if !filepath.IsAbs(string(r.req.GetDestination())) {
		return usage("the destination %q must be an absolute path", r.req.GetDestination())
	}
	if err := r.find(ctx); err != nil {
		return err
	}
	warnings, err := r.check(ctx)
	if err != nil {
		return err
	}
	first := &api.RestoreClusterEvent{Warnings: warnings}
	for _, p := range r.plan.Restores {
		first.Plan = append(first.Plan, r.restored(p))
	}
	if err := r.stream.Send(first); err != nil || r.req.GetDryRun() {
		return err
	}
	errs := make([]error, len(r.plan.Restores))
	var all sync.WaitGroup
	for i, p := range r.plan.Restores {
		all.Go(func() { errs[i] = r.restore(ctx, p) })
	}
	all.Wait()
	return cluster.OneLine(errs...)
}

// find finds the snapshot, and plans.
func (r *restoring) find(ctx context.Context) error {
	all, err := r.records.List(ctx)
	if err != nil {
		return err
	}
	rec, err := cluster.Resolve(all, r.req.GetSnapshot())
	if err != nil {
		return err
	}
	if rec.State != cluster.StateComplete {
		return usage("the snapshot %s is %s: only a complete one can be restored", rec.Name, rec.State)
	}
	if r.manifest, err = cluster.ParseManifest(rec.Manifest); err != nil {
		return err
	}
	there, err := r.Node.members(ctx)
	if err != nil {
		return err
	}
	for _, m := range there {
		r.members[m.Name] = m
	}
	var rules []placement.Rule
	for _, text := range r.req.GetMap() {
		rule, err := placement.ParseRule(text)
		if err != nil {
			return usage("%v", err)
		}
		rules = append(rules, rule)
	}
	var nodes []placement.Node
	for _, n := range r.manifest.Topology.Nodes {
		node := placement.Node{Name: n.Name}
		for _, v := range n.Volumes {
			node.Volumes = append(node.Volumes, v.Name)
		}
		nodes = append(nodes, node)
	}
	if r.plan, err = placement.Remap(nodes, partitionsOf(r.manifest), rules); err != nil {
		return usage("%v", err)
	}
	return r.possible()
}

// possible refuses what nodes can't do.
func (r *restoring) possible() error {
	for _, p := range r.plan.Restores {
		if _, ok := r.members[p.To.Node]; !ok {
			return status.Errorf(codes.FailedPrecondition, "%s would be restored on node %s, which is not in the cluster: start its agent, or say where it goes (--map %s=NODE)", p.From, p.To.Node, p.From.Node)
		}
		if p.To.Node != p.From.Node && len(r.volume(p.From).Copies) == 0 {
			return status.Errorf(codes.FailedPrecondition, "%s had no copies when the snapshot was taken, so node %s can't restore it, only %s can", p.From, p.To.Node, p.From.Node)
		}
	}
	return nil
}

// check compares the graph's version with the snapshot's, and gives what should be known before.
func (r *restoring) check(ctx context.Context) (warnings []string, err error) {
	for node, text := range r.manifest.Metadata {
		before, err := graphmeta.Decode(text)
		if err != nil {
			return nil, fmt.Errorf("the snapshot's metadata of node %s: %w", node, err)
		}
		after, err := r.metadataOf(ctx, node)
		switch {
		case err != nil:
			warnings = append(warnings, fmt.Sprintf("what the graph is now can't be read on %s, so its version isn't compared with the snapshot's (%s): %s", node, before.Version, agent.Message(err)))
		case after == nil:
			warnings = append(warnings, fmt.Sprintf("node %s reads no metadata now; the snapshot's is version %s", node, before.Version))
		default:
			if changed := graphmeta.Compare(before, after); changed != "" && !r.req.GetAnyVersion() {
				return nil, status.Errorf(codes.FailedPrecondition, "the graph is not what it was in the snapshot (%s): %s; restore its metadata first, or give --any-version", node, changed)
			} else if changed != "" {
				warnings = append(warnings, fmt.Sprintf("the graph is not what it was in the snapshot (%s): %s", node, changed))
			}
		}
	}
	return append(warnings, r.plan.Warnings()...), nil
}

func (r *restoring) metadataOf(ctx context.Context, node string) (*graphmeta.Meta, error) {
	m, ok := r.members[node]
	if !ok {
		return nil, status.Errorf(codes.Aborted, "node %s is not in the cluster", node)
	}
	c, err := r.dialNode(m)
	if err != nil {
		return nil, err
	}
	res, err := c.ReadMetadata(ctx, &api.ReadMetadataRequest{})
	if err != nil || len(res.GetMetadata()) == 0 {
		return nil, err
	}
	return graphmeta.Decode(res.GetMetadata())
}

// restored tells where a volume is restored.
func (r *restoring) restored(p placement.Restore) *api.RestoredVolume {
	dest := filepath.Join(string(r.req.GetDestination()), p.To.Node, p.To.Name)
	return &api.RestoredVolume{FromNode: p.From.Node, FromVolume: p.From.Name, Node: p.To.Node, Destination: []byte(dest)}
}

// restore has one volume restored.
func (r *restoring) restore(ctx context.Context, p placement.Restore) error {
	v := r.volume(p.From)
	to := r.restored(p)
	req := &api.RestoreVolumeRequest{Node: p.From.Node, Volume: p.From.Name, Snapshot: v.Snapshot, Destination: to.GetDestination()}
	for _, c := range v.Copies {
		req.Copies = append(req.Copies, &api.RemoteInfo{Urls: c.Targets, Erasure: c.Erasure, Encrypted: c.Encrypted})
	}
	c, err := r.dialNode(r.members[p.To.Node])
	if err != nil {
		return err
	}
	in, err := c.RestoreVolume(ctx, req)
	if err == nil {
		err = api.Each(in, func(ev *api.RestoreEvent) error { return r.tell(p.From, to, ev) })
	}
	if err == nil {
		return nil
	}
	return &cluster.NodeError{Node: p.To.Node, Err: status.Errorf(status.Code(err), "restoring %s to %s: %s", p.From, to.GetDestination(), agent.Message(err))}
}

func (r *restoring) volume(of placement.Volume) cluster.TopologyVolume {
	for _, n := range r.manifest.Topology.Nodes {
		for _, v := range n.Volumes {
			if n.Name == of.Node && v.Name == of.Name {
				return v
			}
		}
	}
	return cluster.TopologyVolume{}
}

// tell passes on how far it is.
func (r *restoring) tell(of placement.Volume, to *api.RestoredVolume, ev *api.RestoreEvent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &api.RestoreClusterEvent{}
	if ev.GetResult() != nil {
		to.Result = ev.GetResult()
		out.Done = to
	}
	if ev.GetProgress() != nil {
		r.progress[of] = ev.GetProgress()
	}
	out.Progress = &api.Progress{}
	for _, p := range r.progress {
		out.Progress.DoneBytes += p.GetDoneBytes()
		out.Progress.TotalBytes += p.GetTotalBytes()
		out.Progress.DoneFiles += p.GetDoneFiles()
		out.Progress.TotalFiles += p.GetTotalFiles()
	}
	return r.stream.Send(out)
}
