package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"graphvol/agent"
)

// upgradeRow is what upgrade --json tells of a volume.
type upgradeRow struct {
	Mount        string   `json:"mount"`
	State        string   `json:"state"`
	Program      string   `json:"program"`
	OldVersion   string   `json:"old_version"`
	Version      string   `json:"version"`
	OldServerPID int64    `json:"old_server_pid"`
	ServerPID    int64    `json:"server_pid"`
	HolderPID    int64    `json:"holder_pid"`
	WaitedMS     float64  `json:"waited_ms"`
	Dropped      []string `json:"dropped,omitempty"`
	Error        string   `json:"error,omitempty"`
}

func (a *app) upgradeCmd() *cobra.Command {
	var all, asJSON bool
	var o agent.UpgradeOptions
	cmd := &cobra.Command{
		Use:   "upgrade VOLUME... | --all",
		Short: "Replace the server of mounted volumes by another version",
		Long: `Has this program, or the one that --binary names, serve volumes that are mounted, while
the database works on them: its requests wait for a moment, none fails, and no file has
to be opened again. Nothing but the server is replaced; its holder stays until the
volume is unmounted.

The new program is looked at first. If it is no graphvol, or too old for the volume,
nothing is changed. If it is started and does not serve, the former program is started
again at once, which is said, and the exit code is 1.

Snapshots that are being stored are finished first, and restores, verifications, prunes
and comparisons too. If that takes longer than --timeout the upgrade is refused, unless
--force drops them; what dropped snapshots would have held is in the next one.`,
		Example: `  graphvol upgrade --all                       # after an installation
  graphvol upgrade /mnt/graph --binary /opt/graphvol-1.4/graphvol
  graphvol status /mnt/graph                   # which version serves`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return volumes(), cobra.ShellCompDirectiveDefault
		},
		Args: func(cmd *cobra.Command, got []string) error {
			if all == (len(got) > 0) {
				return usageError{errors.New("upgrade takes one VOLUME or more, or --all")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.upgrade(cmd.Context(), args, o, asJSON)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "all volumes that are mounted")
	f.StringVar(&o.Program, "binary", "", "the program that shall serve (default: this one)")
	f.DurationVar(&o.Timeout, "timeout", unmountTimeout, "how long to wait for what is under way")
	f.BoolVar(&o.Force, "force", false, "drop what is still under way then")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// upgrade upgrades volumes one after the other. A program that doesn't serve one of them isn't tried on the next.
func (a *app) upgrade(ctx context.Context, args []string, o agent.UpgradeOptions, asJSON bool) error {
	places, err := places(args)
	if err != nil {
		return err
	}
	if o.Program, err = program(o.Program); err != nil {
		return err
	}
	rows := []upgradeRow{}
	var failed error
	for i, p := range places {
		row, err := a.upgradeOne(ctx, p, o)
		rows = append(rows, row)
		if err != nil {
			fmt.Fprintf(a.err, "graphvol: %s\n", agent.Message(err))
			failed = shownError{err}
		} else if !asJSON {
			a.printUpgrade(row)
		}
		if left := places[i+1:]; errors.Is(err, agent.ErrNotServing) && len(left) > 0 {
			fmt.Fprintf(a.err, "graphvol: not tried: %s\n", strings.Join(points(left), ", "))
			break
		}
	}
	if asJSON {
		err := printJSON(a.out, struct {
			Volumes []upgradeRow `json:"volumes"`
		}{rows})
		failed = errors.Join(failed, err)
	} else if len(rows) == 0 {
		fmt.Fprintln(a.out, "no volume is mounted")
	}
	return failed
}

// places finds the volumes that are named; none: all that are mounted.
func places(args []string) ([]agent.Place, error) {
	if len(args) == 0 {
		all, err := agent.Volumes()
		return slices.DeleteFunc(all, agent.Place.IsStore), err
	}
	var out []agent.Place
	for _, arg := range args {
		p, err := agent.Resolve(arg)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func points(places []agent.Place) (out []string) {
	for _, p := range places {
		out = append(out, p.Mount.Point)
	}
	return out
}

// program makes a path absolute; empty: this program's.
func program(path string) (string, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find this program: %w", err)
		}
		return self, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the program %s: %w", path, err)
	}
	return abs, nil
}

func (a *app) upgradeOne(ctx context.Context, p agent.Place, o agent.UpgradeOptions) (upgradeRow, error) {
	wait := newProgress(a.err, "waiting")
	defer wait.done()
	o.Waiting = func(names []string) { wait.stage("waiting for " + strings.Join(names, ", ")) }
	up, err := agent.Upgrade(ctx, p, o)
	row := upgradeRow{
		Mount: p.Mount.Point, State: p.State, Program: o.Program,
		OldVersion: up.Old.GetVersion(), OldServerPID: up.Old.GetServerPid(),
		Version: up.New.GetVersion(), ServerPID: up.New.GetServerPid(), HolderPID: up.New.GetHolderPid(),
		WaitedMS: millis(up.Waited), Dropped: up.Dropped,
	}
	if err != nil {
		row.Error = agent.Message(err)
	}
	return row, err
}

func (a *app) printUpgrade(r upgradeRow) {
	fmt.Fprintf(a.out, "%s  served by graphvol %s (process %d), before by %s (process %d); requests waited %s\n", r.Mount, r.Version, r.ServerPID,
		r.OldVersion, r.OldServerPID, duration(time.Duration(r.WaitedMS*float64(time.Millisecond))))
	if len(r.Dropped) > 0 {
		fmt.Fprintf(a.out, "  dropped: %s; what they would have held is in the next snapshot\n", strings.Join(r.Dropped, ", "))
	}
}
