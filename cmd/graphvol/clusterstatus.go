package main

import (
	"fmt"
	"graphvol/agent/api"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
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
}

func (a *app) clusterStatusCmd(f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the nodes of the cluster and how they fare",
		Long:    `Shows the nodes of the cluster, which of them is the coordinator, and how they fare.`,
		Example: `  graphvol cluster status`,
		Args:    args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(func(c api.ClusterClient) error {
				st, err := c.GetCluster(cmd.Context(), &api.GetClusterRequest{})
				if err != nil {
					return err
				}
				return a.printCluster(st, f.json)
			})
		},
	}
}

func (a *app) printCluster(st *api.ClusterStatus, asJSON bool) error {
	rows := []clusterNodeRow{}
	for _, n := range st.GetNodes() {
		rows = append(rows, clusterNodeRow{
			n.GetName(), n.GetAddress(), n.GetState(), append([]string{}, n.GetEvidence()...), n.GetVersion(), n.GetStarted().AsTime(), append([]string{}, n.GetVolumes()...), n.GetConfigVersion(), n.GetProblem(),
		})
	}
	if asJSON {
		return printJSON(a.out, struct {
			Cluster     string           `json:"cluster"`
			Coordinator string           `json:"coordinator"`
			Nodes       []clusterNodeRow `json:"nodes"`
		}{st.GetCluster(), st.GetCoordinator(), rows})
	}
	fmt.Fprintf(a.out, "cluster %s, coordinator %s\n", st.GetCluster(), st.GetCoordinator())
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tADDRESS\tVOLUMES\tCONFIGURATION\tVERSION")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.State, r.Address, strings.Join(r.Volumes, " "), r.Config, r.Version)
		for _, e := range r.Evidence {
			fmt.Fprintf(w, "\t  %s\n", e)
		}
		if r.Problem != "" {
			fmt.Fprintf(w, "\t  %s\n", r.Problem)
		}
	}
	return w.Flush()
}
