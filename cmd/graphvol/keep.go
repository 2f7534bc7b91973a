package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

func (a *app) keepCmd() *cobra.Command {
	req := &api.HoldRequest{}
	cmd := &cobra.Command{
		Use:   "keep VOLUME SNAPSHOT...",
		Short: "Hold snapshots, so that nothing deletes them",
		Long: `Holds complete snapshots: neither delete nor forget removes them until they are let go
(graphvol release). The reason is shown by graphvol snapshots.`,
		Example:           `  graphvol keep /mnt/graph before-upgrade --reason "audit 2026"`,
		Args:              args(cobra.MinimumNArgs(2), "VOLUME and at least one SNAPSHOT"),
		ValidArgsFunction: a.completeArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Snapshots = args[1:]
			return a.hold(cmd, args[0], req, "held")
		},
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "held", "why, for those who want to delete them")
	return cmd
}

func (a *app) releaseCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "release VOLUME SNAPSHOT...",
		Short:             "Let snapshots be deleted that were held",
		Long:              `Lets snapshots be deleted again that graphvol keep has held.`,
		Example:           `  graphvol release /mnt/graph before-upgrade`,
		Args:              args(cobra.MinimumNArgs(2), "VOLUME and at least one SNAPSHOT"),
		ValidArgsFunction: a.completeArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.hold(cmd, args[0], &api.HoldRequest{Snapshots: args[1:]}, "released")
		},
	}
}

func (a *app) hold(cmd *cobra.Command, volume string, req *api.HoldRequest, verb string) error {
	c, err := a.open(cmd.Context(), volume)
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := c.Hold(cmd.Context(), req)
	if err != nil {
		return err
	}
	for _, s := range res.GetSnapshots() {
		if _, err := fmt.Fprintf(a.out, "%s %s  %s\n", verb, s.GetName(), s.GetId()); err != nil {
			return err
		}
	}
	return nil
}
