package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

// clusterFindingRow is what --json tells of something that isn't as it should be.
type clusterFindingRow struct {
	Snapshot string `json:"snapshot"`
	ID       string `json:"id"`
	Node     string `json:"node"`
	Volume   string `json:"volume"`
	Problem  string `json:"problem"`
	Done     string `json:"done"`
}

func (a *app) clusterRepairCmd(f *clusterFlags) *cobra.Command {
	req := &api.RepairClusterRequest{}
	cmd := &cobra.Command{
		Use:   "repair",
		Short: "Compare the snapshots of the cluster with what the nodes have",
		Long: `Compares what the cluster calls complete with what the nodes' volumes have, so that nobody
takes for the newest state what isn't there. A snapshot of which a volume has lost its part is
called damaged from then on, and complete again when the part is back (graphvol attach,
graphvol repair). One that is whole and that etcd has no record of, since it was lost or put
back, gets one again, from the manifest beside its parts.

The exit code is 1 if something was found that isn't mended.`,
		Example: `  graphvol cluster repair --dry-run`,
		Args:    args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(func(c api.ClusterClient) error {
				res, err := c.Repair(cmd.Context(), req)
				if err != nil {
					return err
				}
				return a.printRepaired(res, f.json)
			})
		},
	}
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "change nothing, only say what would be done")
	return cmd
}

func (a *app) printRepaired(res *api.RepairClusterResponse, asJSON bool) error {
	rows, left := []clusterFindingRow{}, 0
	for _, f := range res.GetFindings() {
		rows = append(rows, clusterFindingRow{f.GetSnapshot(), f.GetId(), f.GetNode(), f.GetVolume(), f.GetProblem(), f.GetDone()})
		if f.GetDone() == "" {
			left++
		}
	}
	if asJSON {
		err := printJSON(a.out, struct {
			Findings []clusterFindingRow `json:"findings"`
			Away     []string            `json:"away"`
		}{rows, append([]string{}, res.GetAway()...)})
		if err != nil {
			return err
		}
	} else {
		a.printClusterFindings(rows, res.GetAway())
	}
	if left > 0 {
		return fmt.Errorf("%s nothing was done about", plural(int64(left), "finding"))
	}
	return nil
}

func (a *app) printClusterFindings(rows []clusterFindingRow, away []string) {
	for _, r := range rows {
		where := ""
		if r.Node != "" {
			where = fmt.Sprintf(" (node %s, volume %s)", r.Node, r.Volume)
		}
		fmt.Fprintf(a.out, "%s%s: %s", r.Snapshot, where, r.Problem)
		if r.Done != "" {
			fmt.Fprintf(a.out, "; %s", r.Done)
		}
		fmt.Fprintln(a.out)
	}
	if len(away) > 0 {
		fmt.Fprintf(a.out, "not asked, as they are away: %s\n", strings.Join(away, ", "))
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.out, "the records agree with what the nodes have")
	}
}
