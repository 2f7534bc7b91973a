package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

// restoredConfigRow is what --json tells of a configuration that was put back.
type restoredConfigRow struct {
	Node     string   `json:"node"` // empty: of all nodes
	Was      int64    `json:"was"`
	Revision int64    `json:"revision"` // 0 with --dry-run
	From     []string `json:"from"`
	Older    []string `json:"older"`
}

func (a *app) configRestoreCmd(f *clusterFlags) *cobra.Command {
	req := &api.RestoreConfigRequest{}
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Put back what the centre has lost",
		Long: `After all of etcd's data was lost, nodes go on with the configuration of the centre that they had
last (graphvol cluster status says so). This puts it back into the centre: of each the newest that
a node has kept. What the centre has stays as it is. Have all nodes started first.`,
		Example: `  graphvol cluster config restore --dry-run`,
		Args:    args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(func(c api.ClusterClient) error {
				res, err := c.RestoreConfig(cmd.Context(), req)
				if err != nil {
					return err
				}
				return a.printRestoredConfigs(res, f.json)
			})
		},
	}
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "change nothing, only say what would be done")
	return cmd
}

func (a *app) printRestoredConfigs(res *api.RestoreConfigResponse, asJSON bool) error {
	rows := []restoredConfigRow{}
	for _, r := range res.GetRestored() {
		rows = append(rows, restoredConfigRow{r.GetNode(), r.GetWas(), r.GetRevision(), append([]string{}, r.GetFrom()...), append([]string{}, r.GetOlder()...)})
	}
	if asJSON {
		return printJSON(a.out, struct {
			Restored []restoredConfigRow `json:"restored"`
		}{rows})
	}
	if len(rows) == 0 {
		return errors.New("no node has a configuration that the centre has lost")
	}
	for _, r := range rows {
		of, done := "all nodes", "would be put back"
		if r.Node != "" {
			of = "node " + r.Node
		}
		if r.Revision != 0 {
			done = fmt.Sprintf("is put back as revision %d", r.Revision)
		}
		fmt.Fprintf(a.out, "that of %s %s: revision %d, kept by %s", of, done, r.Was, strings.Join(r.From, ", "))
		if len(r.Older) > 0 {
			fmt.Fprintf(a.out, "; %s had an older one", strings.Join(r.Older, ", "))
		}
		fmt.Fprintln(a.out)
	}
	return nil
}
