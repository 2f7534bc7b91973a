package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/agent/config"
	"graphvol/agent/reach"
	"graphvol/agent/traceid"
)

// clusterFlags say which agent is asked.
type clusterFlags struct {
	config, socket string
	json           bool
}

func (a *app) clusterCmd() *cobra.Command {
	var f clusterFlags
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "One snapshot over many nodes",
		Long: `Snapshots over all nodes of a cluster, of one moment, and how the nodes fare. Every node has an
agent (graphvol agent); these commands ask the one of this machine, and it asks the others.`,
		Example: `  graphvol cluster snapshot --name before-upgrade
  graphvol cluster snapshots
  graphvol cluster status`,
		Args: func(*cobra.Command, []string) error {
			return usageError{errors.New("choose one of the commands below cluster")}
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.PersistentFlags().StringVar(&f.config, "config", config.Path, "the agent's configuration, which says where it listens")
	cmd.PersistentFlags().StringVar(&f.socket, "socket", "", "the agent's socket (default: agent.sock in the state directory of the configuration)")
	cmd.PersistentFlags().BoolVar(&f.json, "json", false, "print JSON")
	cmd.AddCommand(a.clusterSnapshotCmd(&f), a.clusterSnapshotsCmd(&f), a.clusterDeleteCmd(&f), a.clusterStatusCmd(&f),
		a.clusterConfigCmd(&f), a.clusterRestoreCmd(&f), a.clusterRepairCmd(&f), a.clusterMemberCmd(&f))
	return cmd
}

// path is where the agent of this machine listens.
func (f *clusterFlags) path() (string, error) {
	if f.socket != "" {
		return f.socket, nil
	}
	state := config.DefaultNodeState
	c, err := config.Read(f.config)
	switch {
	case err == nil && c.Node.State != "":
		state = c.Node.State
	case err != nil && (f.config != config.Path || !errors.Is(err, os.ErrNotExist)):
		return "", err
	}
	return reach.SocketPath(state), nil
}

// ask calls the agent of this machine.
func (f *clusterFlags) ask(fn func(api.ClusterClient) error) error {
	path, err := f.path()
	if err != nil {
		return err
	}
	conn, err := reach.Dial("unix:"+path, insecure.NewCredentials(), traceid.DialOption())
	if err != nil {
		return err
	}
	defer conn.Close()
	return noAgent(path, fn(api.NewClusterClient(conn)))
}

// noAgent puts into words that the agent isn't there, or isn't any more.
func noAgent(path string, err error) error {
	if status.Code(err) != codes.Unavailable {
		return err
	}
	conn, derr := net.Dial("unix", path)
	if derr == nil {
		conn.Close()
		return &agent.Error{Code: codes.Unavailable, Message: fmt.Sprintf("the agent at %s has ended, or hangs, while it worked on this: graphvol cluster snapshots tells what is done; then try again", path), Err: err}
	}
	return &agent.Error{Code: codes.Unavailable, Message: fmt.Sprintf("no agent answers at %s: start it (graphvol agent), or name its --config or --socket", path), Err: err}
}
