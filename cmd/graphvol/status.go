package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"graphvol/agent"
	"graphvol/agent/api"
)

type statusRow struct {
	Mount      string `json:"mount"`
	Backing    string `json:"backing"`
	State      string `json:"state"`
	ServerPID  int64  `json:"server_pid"`
	HolderPID  int64  `json:"holder_pid"`
	Epoch      uint64 `json:"epoch"`
	DirtyBytes int64  `json:"dirty_bytes"`
	Snapshots  int64  `json:"snapshots"`
	Pending    int64  `json:"pending"`
	StoreBytes int64  `json:"store_bytes"`
	Cache      string `json:"cache"`
	Scanning   bool   `json:"scanning"`
	Version    string `json:"version"`
	Problem    string `json:"problem,omitempty"`
	Error      string `json:"error,omitempty"`

	Server  *serverRow  `json:"server,omitempty"` // of a mounted volume
	Remotes []remoteRow `json:"remotes,omitempty"`
}

// serverRow is what a server uses of the machine.
type serverRow struct {
	Started       time.Time `json:"started"`
	Goroutines    int64     `json:"goroutines"`
	OpenFiles     int64     `json:"open_files"`
	MaxOpenFiles  int64     `json:"max_open_files"`
	ResidentBytes int64     `json:"resident_bytes"`
	HeapBytes     int64     `json:"heap_bytes"`
}

func (a *app) statusCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [VOLUME]",
		Short: "Show mounted volumes, or one volume",
		Long: `Shows a volume's state, mounted or not; without VOLUME all volumes that are mounted.
A volume whose agent doesn't answer is shown with the reason, and the exit code is 1.`,
		Example: `  graphvol status
  graphvol status /mnt/graph --json | jq '.volumes[0].dirty_bytes'`,
		Args:              args(cobra.MaximumNArgs(1), "at most one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			rows, err := a.status(cmd.Context(), args)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(a.out, struct {
					Volumes []statusRow `json:"volumes"`
				}{rows})
			} else {
				printStatus(a.out, rows)
			}
			for _, r := range rows {
				if r.Error != "" && err == nil {
					err = fmt.Errorf("%s: %s", r.Mount, r.Error)
				}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) status(ctx context.Context, args []string) ([]statusRow, error) {
	rows := []statusRow{}
	if len(args) > 0 {
		row, err := a.statusOf(ctx, args[0])
		if err != nil {
			return nil, err
		}
		return append(rows, row), nil
	}
	places, err := agent.Volumes()
	if err != nil {
		return nil, err
	}
	for _, p := range places {
		row, err := a.statusOf(ctx, p.Mount.Point)
		if err != nil {
			row = statusRow{Mount: p.Mount.Point, State: p.State, Error: agent.Message(err)}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (a *app) statusOf(ctx context.Context, volume string) (statusRow, error) {
	c, err := a.open(ctx, volume)
	if err != nil {
		return statusRow{}, err
	}
	defer c.Close()
	s, err := c.Status(ctx, &api.StatusRequest{})
	if err != nil {
		return statusRow{}, err
	}
	return statusRow{
		Mount: s.GetMount(), Backing: s.GetBacking(), State: s.GetState(), ServerPID: s.GetServerPid(), HolderPID: s.GetHolderPid(),
		Epoch: s.GetEpoch(), DirtyBytes: s.GetDirtyBytes(), Snapshots: s.GetSnapshots(), Pending: s.GetPending(),
		StoreBytes: s.GetStoreBytes(), Cache: s.GetCache(), Scanning: s.GetScanning(), Version: s.GetVersion(), Server: serverOf(s),
		Problem: s.GetProblem(), Remotes: remoteRows(s.GetRemotes()),
	}, nil
}

func serverOf(s *api.VolumeStatus) *serverRow {
	p := s.GetServer()
	if p == nil {
		return nil
	}
	return &serverRow{
		Started: s.GetStarted().AsTime(), Goroutines: p.GetGoroutines(), OpenFiles: p.GetOpenFiles(),
		MaxOpenFiles: p.GetMaxOpenFiles(), ResidentBytes: p.GetResidentBytes(), HeapBytes: p.GetHeapBytes(),
	}
}

// place is what State is: of a mounted copy it has a cache, nothing of its own.
func (r *statusRow) place() string {
	if r.Backing == "" && r.Mount != "" && r.Error == "" {
		return "cache"
	}
	return "state"
}

func printStatus(w io.Writer, rows []statusRow) {
	if len(rows) == 0 {
		fmt.Fprintln(w, "no volume is mounted")
	}
	for _, r := range rows {
		switch {
		case r.Error != "":
			fmt.Fprintf(w, "%s  does not answer\n", r.Mount)
		case r.place() == "cache":
			fmt.Fprintf(w, "%s  a mounted copy of a store, only read\n  server %d (graphvol %s)\n", r.Mount, r.ServerPID, r.Version)
		case r.Mount == "":
			fmt.Fprintf(w, "%s  not mounted\n", cmp.Or(r.Backing, r.State))
		default:
			fmt.Fprintf(w, "%s  mounted from %s (%s cache)\n", r.Mount, r.Backing, r.Cache)
			fmt.Fprintf(w, "  server %d (graphvol %s), holder %d, epoch %d\n", r.ServerPID, r.Version, r.HolderPID, r.Epoch)
			if s := r.Server; s != nil {
				fmt.Fprintf(w, "  %s resident, %s of heap, %d of %d files open, %s\n", size(s.ResidentBytes), size(s.HeapBytes), s.OpenFiles, s.MaxOpenFiles,
					plural(s.Goroutines, "goroutine"))
			}
		}
		fmt.Fprintf(w, "  %s %s\n", r.place(), r.State)
		if r.Error != "" {
			continue
		}
		if r.Problem != "" {
			fmt.Fprintf(w, "  problem: %s\n", r.Problem)
		}
		if r.Problem != "" && r.StoreBytes == 0 {
			continue // the figures aren't known
		}
		fmt.Fprintf(w, "  %s, %d of them pending; %s stored", plural(r.Snapshots, "snapshot"), r.Pending, size(r.StoreBytes))
		if r.Mount != "" && r.place() == "state" {
			fmt.Fprintf(w, "; %s changed since the last one", size(r.DirtyBytes))
		}
		fmt.Fprintln(w)
		for _, c := range r.Remotes {
			printRemote(w, "  ", c)
		}
		if r.Scanning {
			fmt.Fprintln(w, "  looking for changes made while it was not mounted")
		}
	}
}
