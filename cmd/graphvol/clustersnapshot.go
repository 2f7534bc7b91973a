package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"graphvol/agent"
	"graphvol/agent/api"
)

// clusterRow is what --json tells of a snapshot of the cluster.
type clusterRow struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Parent   string    `json:"parent"`
	Created  time.Time `json:"created"`
	HoldMS   float64   `json:"hold_ms"`
	TookMS   float64   `json:"took_ms"`
	Checksum string    `json:"checksum_sha256"`
	Error    string    `json:"error,omitempty"`
	Drift    string    `json:"drift,omitempty"`
	Trace    string    `json:"trace_id,omitempty"`
	Nodes    []nodeRow `json:"nodes"`
}

type nodeRow struct {
	Node    string      `json:"node"`
	Volumes []volumeRow `json:"volumes"`
}

type volumeRow struct {
	Volume   string  `json:"volume"`
	Snapshot string  `json:"snapshot"`
	State    string  `json:"state"`
	HoldMS   float64 `json:"hold_ms"`
	Checksum string  `json:"checksum_sha256"`
	Error    string  `json:"error,omitempty"`
}

func rowOfCluster(s *api.ClusterSnapshot) clusterRow {
	r := clusterRow{
		ID: s.GetId(), Name: s.GetName(), State: s.GetState(), Parent: s.GetParent(), Created: s.GetCreated().AsTime(),
		HoldMS: millis(s.GetHold().AsDuration()), TookMS: millis(s.GetTook().AsDuration()), Checksum: s.GetChecksumSha256(), Error: s.GetError(), Drift: s.GetDrift(), Trace: s.GetTraceId(), Nodes: []nodeRow{},
	}
	for _, n := range s.GetNodes() {
		row := nodeRow{Node: n.GetNode(), Volumes: []volumeRow{}}
		for _, v := range n.GetVolumes() {
			snap := v.GetSnapshot()
			row.Volumes = append(row.Volumes, volumeRow{v.GetVolume(), snap.GetId(), snap.GetState(), millis(snap.GetPause().AsDuration()), snap.GetChecksumSha256(), v.GetError()})
		}
		r.Nodes = append(r.Nodes, row)
	}
	return r
}

func (a *app) clusterSnapshotCmd(f *clusterFlags) *cobra.Command {
	req := &api.TakeSnapshotRequest{}
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Take a snapshot over all nodes",
		Long: `Takes a snapshot of all volumes of all nodes, as they are at one moment, while the databases
work on. Writers are held on all nodes at once, for milliseconds.

What one client changed on one node and then, when that had returned, on another, is never
in the snapshot without the first; with --cache writeback "returned" is fsync. It is complete
when every volume's part is stored, and else there is none.`,
		Example: `  graphvol cluster snapshot --name before-upgrade`,
		Args:    args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(func(c api.ClusterClient) error {
				s, err := a.takeClusterSnapshot(cmd.Context(), c, req)
				if err != nil {
					return err
				}
				return a.printClusterSnapshot(s, f.json)
			})
		},
	}
	cmd.Flags().StringVar(&req.Name, "name", "", "name of the snapshot (default: made from the time)")
	cmd.Flags().BoolVar(&req.NoWait, "no-wait", false, "return after the pause, don't wait until everything is stored")
	return cmd
}

func (a *app) takeClusterSnapshot(ctx context.Context, c api.ClusterClient, req *api.TakeSnapshotRequest) (last *api.ClusterSnapshot, err error) {
	stream, err := c.TakeSnapshot(ctx, req)
	if err != nil {
		return nil, err
	}
	bar := newProgress(a.err, "preparing")
	defer bar.done()
	err = api.Each(stream, func(ev *api.TakeSnapshotEvent) error {
		bar.stage(ev.GetPhase())
		last = ev.GetSnapshot()
		return nil
	})
	if err != nil {
		return nil, begun(last, err)
	}
	return last, nil
}

// begun adds to an error where more is said about it. What is refused at once has said it all.
func begun(last *api.ClusterSnapshot, err error) error {
	if last.GetTraceId() == "" {
		return err
	}
	return &agent.Error{Code: status.Code(err), Message: fmt.Sprintf("%s; the logs of the nodes and volumes have more, with trace_id %s", agent.Message(err), last.GetTraceId()), Err: err}
}

func (a *app) printClusterSnapshot(s *api.ClusterSnapshot, asJSON bool) error {
	if asJSON {
		return printJSON(a.out, rowOfCluster(s))
	}
	volumes := int64(0)
	for _, n := range s.GetNodes() {
		volumes += int64(len(n.GetVolumes()))
	}
	fmt.Fprintf(a.out, "%s  %s\n  held writers of %s on %s for at most %s; ", s.GetName(), s.GetId(), plural(volumes, "volume"), plural(int64(len(s.GetNodes())), "node"), duration(s.GetHold().AsDuration()))
	if s.GetState() != "complete" {
		_, err := fmt.Fprintf(a.out, "being stored (%s)\n", s.GetState())
		return err
	}
	fmt.Fprintf(a.out, "complete after %s\n", duration(s.GetTook().AsDuration()))
	if s.GetDrift() != "" {
		fmt.Fprintf(a.out, "  the graph's partitions since the snapshot before: %s\n", s.GetDrift())
	}
	if s.GetPlacement() != "" {
		fmt.Fprintf(a.out, "  partitions: %s\n", s.GetPlacement())
	}
	return nil
}

func (a *app) clusterSnapshotsCmd(f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "snapshots",
		Short:   "List the snapshots of the cluster",
		Long:    `Lists the snapshots of the cluster, oldest first, with those that failed and why.`,
		Example: `  graphvol cluster snapshots --json`,
		Args:    args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(func(c api.ClusterClient) error {
				res, err := c.ListClusterSnapshots(cmd.Context(), &api.ListClusterSnapshotsRequest{})
				if err != nil {
					return err
				}
				return a.printClusterSnapshots(res.GetSnapshots(), f.json)
			})
		},
	}
}

func (a *app) printClusterSnapshots(list []*api.ClusterSnapshot, asJSON bool) error {
	rows := []clusterRow{}
	for _, s := range list {
		rows = append(rows, rowOfCluster(s))
	}
	if asJSON {
		return printJSON(a.out, struct {
			Snapshots []clusterRow `json:"snapshots"`
		}{rows})
	}
	t := newTable(a.out, "NAME", "ID", "CREATED", "NODES", "HOLD", "STATE")
	for _, r := range rows {
		state := r.State
		if r.Error != "" {
			state += ": " + r.Error
		}
		if r.Error != "" && r.Trace != "" {
			state += " (trace_id " + r.Trace + ")"
		}
		t.row(r.Name, fmt.Sprintf("%.8s", r.ID), r.Created.Local().Format(time.DateTime), fmt.Sprint(len(r.Nodes)), fmt.Sprintf("%.3gms", r.HoldMS), state)
	}
	return t.flush()
}

func (a *app) clusterDeleteCmd(f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "delete SNAPSHOT...",
		Short: "Delete snapshots of the cluster on all nodes",
		Long: `Deletes snapshots of the cluster, on all nodes. All that are named must be known, or nothing
happens. Where a node is away, its part is deleted when it is back. graphvol prune gives the
space back, on each node.`,
		Example: `  graphvol cluster delete before-upgrade`,
		Args:    args(cobra.MinimumNArgs(1), "one or more SNAPSHOTs"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.ask(func(c api.ClusterClient) error {
				res, err := c.DeleteClusterSnapshots(cmd.Context(), &api.DeleteClusterSnapshotsRequest{Snapshots: args})
				if err != nil {
					return err
				}
				return a.printDeleted(res.GetDeleted(), f.json)
			})
		},
	}
}

func (a *app) printDeleted(list []*api.ClusterSnapshot, asJSON bool) error {
	rows := []clusterRow{}
	for _, s := range list {
		rows = append(rows, rowOfCluster(s))
		if !asJSON {
			fmt.Fprintf(a.out, "deleted %s  %s\n", s.GetName(), s.GetId())
		}
	}
	if !asJSON {
		return nil
	}
	return printJSON(a.out, struct {
		Deleted []clusterRow `json:"deleted"`
	}{rows})
}
