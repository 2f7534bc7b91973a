package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"graphvol/agent"
	"graphvol/agent/api"
)

// completionWait bounds what a press of the tab key may cost.
const completionWait = 2 * time.Second

// completeArgs completes the first argument to a volume and those from the second up to last (0: all) to snapshots.
func (a *app) completeArgs(last int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return volumes(), cobra.ShellCompDirectiveDefault
		}
		if last > 0 && len(args) > last {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.snapshotNames(cmd.Context(), args[0]), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeVolume completes one argument to a volume.
func (a *app) completeVolume(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return volumes(), cobra.ShellCompDirectiveDefault
}

// volumes lists the mounted ones; the shell adds directories.
func volumes() []cobra.Completion {
	places, err := agent.Volumes()
	if err != nil {
		return nil
	}
	var out []cobra.Completion
	for _, p := range places {
		out = append(out, cobra.CompletionWithDesc(p.Mount.Point, "mounted volume"))
	}
	return out
}

func (a *app) snapshotNames(ctx context.Context, volume string) []cobra.Completion {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionWait)
	defer cancel()
	c, err := a.open(ctx, volume)
	if err != nil {
		return nil
	}
	defer c.Close()
	list, err := c.ListSnapshots(ctx, &api.ListSnapshotsRequest{})
	if err != nil {
		return nil
	}
	out := []cobra.Completion{cobra.CompletionWithDesc("latest", "the newest complete snapshot")}
	for _, s := range list.GetSnapshots() {
		out = append(out, cobra.CompletionWithDesc(s.GetName(), s.GetCreated().AsTime().Local().Format(time.DateTime)))
	}
	return out
}
