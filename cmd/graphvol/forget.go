package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/snapshot/retain"
)

// forgetRow is what forget --json tells of a snapshot.
type forgetRow struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Keep    bool      `json:"keep"`
	Reasons []string  `json:"reasons,omitempty"` // why it is kept
}

func (a *app) forgetCmd() *cobra.Command {
	var p retain.Policy
	var within string
	var dryRun, prune, asJSON bool
	cmd := &cobra.Command{
		Use:   "forget VOLUME --keep-...",
		Short: "Delete snapshots by a policy",
		Long: `Deletes the complete snapshots that none of the rules keeps. --keep-daily 7 keeps the
newest snapshot of each of the last 7 days that have one, and so for the others; what any
rule keeps is kept. Days and weeks are those of this machine's time zone. The newest
snapshot is always kept, and so are those that are held (graphvol keep).

Look at it with --dry-run first. The space is given back by graphvol prune, or with
--prune.`,
		Example: `  graphvol forget /mnt/graph --keep-hourly 24 --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  graphvol forget /mnt/graph --keep-last 10 --keep-within 30d --prune`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if within != "" {
				p.Within, err = retain.ParseSpan(within)
			}
			if err == nil {
				err = p.Check()
			}
			if err != nil {
				return usageError{err}
			}
			rows, err := a.forget(cmd, args[0], p, dryRun)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(a.out, struct {
					Snapshots []forgetRow `json:"snapshots"`
					DryRun    bool        `json:"dry_run"`
				}{rows, dryRun})
			} else {
				err = a.printForgotten(rows, dryRun)
			}
			if err == nil && prune && !dryRun {
				_, err = a.prune(cmd, args[0], &api.PruneRequest{})
			}
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&p.Last, "keep-last", 0, "keep the newest N; -1: all")
	f.IntVar(&p.Hourly, "keep-hourly", 0, "keep one of each of the last N hours that have one; -1: of all")
	f.IntVar(&p.Daily, "keep-daily", 0, "the same by days")
	f.IntVar(&p.Weekly, "keep-weekly", 0, "the same by weeks (ISO 8601)")
	f.IntVar(&p.Monthly, "keep-monthly", 0, "the same by months")
	f.IntVar(&p.Yearly, "keep-yearly", 0, "the same by years")
	f.StringVar(&within, "keep-within", "", "keep all that are not older than this before the newest, as 1y6m14d12h")
	f.StringArrayVar(&p.Tags, "keep-tag", nil, "keep all that have this tag; repeat it for more")
	f.BoolVar(&dryRun, "dry-run", false, "delete nothing, only say what would be")
	f.BoolVar(&prune, "prune", false, "give the space back too")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// forget deletes what the policy doesn't keep, and tells of all complete snapshots.
func (a *app) forget(cmd *cobra.Command, volume string, p retain.Policy, dryRun bool) ([]forgetRow, error) {
	c, err := a.open(cmd.Context(), volume)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	list, err := c.ListSnapshots(cmd.Context(), &api.ListSnapshotsRequest{})
	if err != nil {
		return nil, err
	}
	names := make(map[string]string)
	for _, s := range list.GetSnapshots() {
		names[s.GetId()] = s.GetName()
	}
	rows := []forgetRow{}
	var gone []string
	for _, d := range p.Apply(agent.RetainItems(list.GetSnapshots())) {
		rows = append(rows, forgetRow{d.ID, names[d.ID], d.Created, d.Keep, d.Reasons})
		if !d.Keep {
			gone = append(gone, d.ID)
		}
	}
	if len(gone) > 0 && !dryRun {
		_, err = c.Delete(cmd.Context(), &api.DeleteRequest{Snapshots: gone})
	}
	return rows, err
}

func (a *app) printForgotten(rows []forgetRow, dryRun bool) error {
	verb := map[bool]string{false: "deleted", true: "would delete"}[dryRun]
	t := newTable(a.out, "", "NAME", "CREATED", "BECAUSE")
	kept := 0
	for _, r := range rows {
		what, why := verb, ""
		if r.Keep {
			what, why = "keep", strings.Join(r.Reasons, ", ")
			kept++
		}
		t.row(what, r.Name, r.Created.Format(time.DateTime), why)
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.out, "%s %s, kept %d\n", verb, plural(int64(len(rows)-kept), "snapshot"), kept)
	return err
}
