package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"graphvol/agent/config"
	"graphvol/agent/node"
)

func (a *app) agentCmd() *cobra.Command {
	var path string
	var etcd []string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the daemon of a node",
		Long: `Runs the daemon of this machine: it mounts the volumes of the configuration and, with the
agents of other machines, takes one consistent snapshot over all of them (graphvol cluster
snapshot). They agree by etcd, which runs inside the agents, or elsewhere with --etcd.

It stays in the foreground. When it ends (SIGTERM, ^C, whatever comes), volumes stay
mounted and databases work on; the next one finds them. docs/cluster.md shows the set-up.`,
		Example: `  graphvol agent --config /etc/graphvol/graphvol.yaml
  graphvol agent --etcd https://etcd1:2379,https://etcd2:2379`,
		Args: args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Read(path)
			if err != nil {
				return err
			}
			if len(etcd) > 0 {
				c.Etcd = config.Etcd{Endpoints: etcd, TLS: c.Etcd.TLS}
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			return node.Run(cmd.Context(), node.Options{Config: c, Self: self, Version: a.version, Ready: func() {
				fmt.Fprintln(a.out, "the agent is ready")
			}})
		},
	}
	cmd.Flags().StringVar(&path, "config", config.Path, "the configuration")
	cmd.Flags().StringSliceVar(&etcd, "etcd", nil, "URLs of an etcd that is there already (default: the configuration's, or the agents' own)")
	return cmd
}
