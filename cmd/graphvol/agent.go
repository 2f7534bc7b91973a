package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"graphvol/agent/config"
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
		RunE: func(*cobra.Command, []string) error {
			if _, err := config.Read(path); err != nil {
				return err
			}
			return a.becomeAgent(path, etcd)
		},
	}
	cmd.Flags().StringVar(&path, "config", config.Path, "the configuration")
	cmd.Flags().StringSliceVar(&etcd, "etcd", nil, "URLs of an etcd that is there already (default: the configuration's, or the agents' own)")
	return cmd
}

// agentProgram is the daemon's own program, beside this one: what it needs would have every server of a volume start later.
const agentProgram = "graphvol-agent"

// becomeAgent has this process go on as the daemon. It returns only to say that it can't.
func (a *app) becomeAgent(config string, etcd []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	options, err := json.Marshal(map[string]any{"config": config, "etcd": etcd, "program": self, "version": a.version})
	if err != nil {
		return err
	}
	program := filepath.Join(filepath.Dir(self), agentProgram)
	if err := unix.Exec(program, []string{agentProgram, string(options)}, os.Environ()); err != nil {
		return fmt.Errorf("start %s: %w: it is installed beside graphvol (make install)", program, err)
	}
	return nil
}
