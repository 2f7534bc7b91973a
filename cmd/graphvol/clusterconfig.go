package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

// maxConfigFile bounds what is read; the agent takes less.
const maxConfigFile = 1 << 20

func (a *app) clusterConfigCmd(f *clusterFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "The configuration of all nodes, in one place",
		Long: `The cluster's configuration centre: what is set here, all agents apply while they run, or refuse
with a reason (graphvol cluster status), in which case what they had stays in force. It has the
sections cluster, metadata, preflight and volumes of graphvol.yaml; node and etcd stay in each
node's own file. A node that has one of its own (--node) doesn't take that of all.`,
		Example: `  graphvol cluster config get > all.yaml
  graphvol cluster config set all.yaml
  graphvol cluster config set --node b b.yaml`,
		Args: func(*cobra.Command, []string) error {
			return usageError{errors.New("choose one of the commands below config")}
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(a.configGetCmd(f), a.configSetCmd(f), a.configRestoreCmd(f))
	return cmd
}

func (a *app) configGetCmd(f *clusterFlags) *cobra.Command {
	req := &api.GetConfigRequest{}
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Print a configuration of the centre",
		Long: `Prints the configuration of all nodes, or with --node the one of that node, as it was set.
--effective prints what the node takes: its own, or else that of all.`,
		Example: `  graphvol cluster config get --node b --effective`,
		Args:    args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.ask(func(c api.ClusterClient) error {
				res, err := c.GetConfig(cmd.Context(), req)
				if err != nil {
					return err
				}
				if f.json {
					return printJSON(a.out, rowOfConfig(res))
				}
				if res.GetText() == "" {
					return errors.New("none is set: nodes run their own files, or what they had last (graphvol cluster status); set one with graphvol cluster config set FILE")
				}
				_, err = io.WriteString(a.out, res.GetText())
				return err
			})
		},
	}
	cmd.Flags().StringVar(&req.Node, "node", "", "of this node (default: of all)")
	cmd.Flags().BoolVar(&req.Effective, "effective", false, "what the node takes")
	return cmd
}

// configRow is what --json tells of a configuration.
type configRow struct {
	Node     string `json:"node"`
	Revision int64  `json:"revision"`
	Text     string `json:"text"`
}

func rowOfConfig(c *api.ConfigText) configRow {
	return configRow{c.GetNode(), c.GetRevision(), c.GetText()}
}

func (a *app) configSetCmd(f *clusterFlags) *cobra.Command {
	req := &api.SetConfigRequest{}
	var was int64
	var remove bool
	cmd := &cobra.Command{
		Use:   "set FILE",
		Short: "Set a configuration of the centre",
		Long: `Sets the configuration of all nodes, or with --node that of one, from a file ("-" is standard
input). It is checked first; what can't be right is refused, and nothing changes. Then every
node that it is for applies it, or refuses it with a reason that graphvol cluster status shows.
--was REVISION refuses if somebody else has changed it meanwhile. --remove removes it.`,
		Example: `  graphvol cluster config set all.yaml
  graphvol cluster config set --node b --remove`,
		Args: func(cmd *cobra.Command, given []string) error {
			if remove {
				return args(cobra.NoArgs, "no FILE with --remove")(cmd, given)
			}
			return args(cobra.ExactArgs(1), "one FILE")(cmd, given)
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			if !remove {
				text, err := readConfigFile(given[0])
				if err != nil {
					return err
				}
				req.Text = text
			}
			if cmd.Flags().Changed("was") {
				req.Was = &was
			}
			return a.setConfig(cmd.Context(), f, req)
		},
	}
	cmd.Flags().StringVar(&req.Node, "node", "", "of this node (default: of all)")
	cmd.Flags().Int64Var(&was, "was", 0, "the revision that is replaced")
	cmd.Flags().BoolVar(&remove, "remove", false, "remove it")
	return cmd
}

func readConfigFile(path string) (string, error) {
	in := os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("the configuration can't be read: %w", err)
		}
		defer file.Close()
		in = file
	}
	p, err := io.ReadAll(io.LimitReader(in, maxConfigFile))
	if err != nil {
		return "", fmt.Errorf("the configuration can't be read: %w", err)
	}
	if len(p) == 0 {
		return "", fmt.Errorf("%s is empty: --remove removes a configuration", path)
	}
	return string(p), nil
}

func (a *app) setConfig(ctx context.Context, f *clusterFlags, req *api.SetConfigRequest) error {
	return f.ask(func(c api.ClusterClient) error {
		res, err := c.SetConfig(ctx, req)
		if err != nil {
			return err
		}
		a.tellUnknown(ctx, c, req.GetNode())
		if f.json {
			return printJSON(a.out, rowOfConfig(res))
		}
		what := "revision " + fmt.Sprint(res.GetRevision()) + " is set"
		if req.GetText() == "" {
			what = "it is removed"
		}
		_, err = fmt.Fprintf(a.out, "%s; graphvol cluster status tells which nodes run it\n", what)
		return err
	})
}

// tellUnknown tells that no node of a name is known: one that will join may have its configuration before, and a name may be misspelt.
func (a *app) tellUnknown(ctx context.Context, c api.ClusterClient, name string) {
	st, err := c.GetCluster(ctx, &api.GetClusterRequest{})
	if name == "" || err != nil || slices.ContainsFunc(st.GetNodes(), func(n *api.ClusterNode) bool { return n.GetName() == name }) {
		return
	}
	fmt.Fprintf(a.err, "graphvol: no node %s is in the cluster so far; it takes this when it joins\n", name)
}
