package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

// clusterNodeRow is what --json tells of a node.
type clusterNodeRow struct {
	Name     string    `json:"name"`
	Address  string    `json:"address"`
	State    string    `json:"state"`
	Evidence []string  `json:"evidence"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Volumes  []string  `json:"volumes"`
	Config   string    `json:"config"`
	Problem  string    `json:"problem,omitempty"`
	Paused   string    `json:"paused,omitempty"`          // why it takes no snapshots
	ClockMS  *float64  `json:"clock_offset_ms,omitempty"` // of the node that answers: how far its clock is ahead
}

func (a *app) clusterStatusCmd(f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the nodes of the cluster and how they fare",
		Long: `Shows the nodes of the cluster, which of them is the coordinator, and how they fare. While etcd
doesn't answer, it shows what the agent of this machine knows by itself, and fails.`,
		Example: `  graphvol cluster status`,
		Args:    args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(func(c api.ClusterClient) error {
				st, err := c.GetCluster(cmd.Context(), &api.GetClusterRequest{})
				if err != nil {
					return err
				}
				if err := a.printCluster(st, f.json); err != nil || st.GetProblem() == "" {
					return err
				}
				return fmt.Errorf("%s; this is what node %s knows by itself", st.GetProblem(), st.GetAnsweredBy())
			})
		},
	}
}

func (a *app) printCluster(st *api.ClusterStatus, asJSON bool) error {
	rows := []clusterNodeRow{}
	for _, n := range st.GetNodes() {
		rows = append(rows, clusterNodeRow{
			n.GetName(), n.GetAddress(), n.GetState(), append([]string{}, n.GetEvidence()...), n.GetVersion(), n.GetStarted().AsTime(), append([]string{}, n.GetVolumes()...), n.GetConfigVersion(), n.GetProblem(), n.GetPaused(), clockOf(n),
		})
	}
	if asJSON {
		return printJSON(a.out, struct {
			Cluster     string           `json:"cluster"`
			Coordinator string           `json:"coordinator"`
			Nodes       []clusterNodeRow `json:"nodes"`
			Disagree    []string         `json:"disagreements,omitempty"`
			Problem     string           `json:"problem,omitempty"` // why etcd can't be asked
		}{st.GetCluster(), st.GetCoordinator(), rows, st.GetDisagreements(), st.GetProblem()})
	}
	return a.printNodes(st, rows)
}

func (a *app) printNodes(st *api.ClusterStatus, rows []clusterNodeRow) error {
	coordinator := st.GetCoordinator()
	switch {
	case st.GetProblem() != "":
		coordinator = "unknown"
	case coordinator == "":
		coordinator = "none is elected"
	}
	fmt.Fprintf(a.out, "cluster %s, coordinator: %s\n", st.GetCluster(), coordinator)
	t := newTable(a.out, "NODE", "STATE", "ADDRESS", "VOLUMES", "CONFIGURATION", "VERSION")
	for _, r := range rows {
		t.row(r.Name, r.State, r.Address, strings.Join(r.Volumes, " "), r.Config, r.Version)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, r := range rows {
		notes := r.Evidence
		if r.State == "alive" {
			notes = nil
		}
		for _, note := range append(notes, r.Problem, r.Paused) {
			if note != "" {
				fmt.Fprintf(a.out, "%s: %s\n", r.Name, note)
			}
		}
	}
	for _, d := range st.GetDisagreements() {
		fmt.Fprintln(a.out, d)
	}
	return nil
}

func clockOf(n *api.ClusterNode) *float64 {
	if n.GetClockOffset() == nil {
		return nil
	}
	ms := millis(n.GetClockOffset().AsDuration())
	return &ms
}
