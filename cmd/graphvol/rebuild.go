package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/snapshot"
)

type rebuildRow struct {
	State           string       `json:"state"`
	Snapshots       int64        `json:"snapshots"`
	Packs           int64        `json:"packs"`
	Chunks          int64        `json:"chunks"`
	OldIndex        string       `json:"old_index"`
	TakenForDeleted []string     `json:"taken_for_deleted"`
	Problems        []problemRow `json:"problems"`
	DurationMS      float64      `json:"duration_ms"`
}

func (a *app) rebuildCmd() *cobra.Command {
	var asJSON, readData bool
	cmd := &cobra.Command{
		Use:   "rebuild VOLUME",
		Short: "Make a lost or damaged index.db anew",
		Long: `Makes a new index.db for a volume that is not mounted, from the packs and manifests in
its store. The old one is kept beside it as index.db.broken-1, -2 and so on, until you
remove it. It may be interrupted at any time, and run again.

All snapshots come back whose manifest, or else their row in the old index, can be read,
and the root of whose tree is in the store. What only a lost index knew does not: how
long writers were paused, which snapshots had failed. What has changed since the newest
snapshot isn't known any more: the next one is a full one, which stores only what the
store doesn't have.

A snapshot that a later one names as the one before it, and that is not there, is taken
for deleted. What is damaged is named, one line each; a manifest that can't be used is
moved to store/damaged. Packs with a damaged header or list of chunks are copied as far
as they are whole. With --read-data all stored data is read, and what is damaged is
left out of the new index, so that the next snapshot stores it anew if the volume still
has it.`,
		Example: `  graphvol umount /mnt/graph && graphvol rebuild /srv/graph
  graphvol rebuild /srv/graph && graphvol verify /srv/graph --read-data`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := a.rebuild(cmd.Context(), args[0], readData)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, rebuildRowOf(&res))
			}
			printRebuilt(a.out, &res)
			return nil
		},
	}
	cmd.Flags().BoolVar(&readData, "read-data", false, "read all stored data, and leave out what is damaged")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) rebuild(ctx context.Context, volume string, readData bool) (agent.Rebuilt, error) {
	p, err := agent.Resolve(volume)
	if err != nil {
		return agent.Rebuilt{}, err
	}
	bar := newProgress(a.err, "rebuilding")
	defer bar.done()
	return agent.Rebuild(ctx, p, snapshot.RebuildOptions{
		ReadData: readData,
		Progress: func(done, total int64) { bar.update(&api.Progress{DoneBytes: done, TotalBytes: total}) },
	}, a.err)
}

func rebuildRowOf(r *agent.Rebuilt) rebuildRow {
	return rebuildRow{
		State: r.State, Snapshots: r.Snapshots, Packs: r.Packs, Chunks: r.Chunks, OldIndex: r.OldIndex, DurationMS: millis(r.Took),
		TakenForDeleted: append([]string{}, r.Deleted...), Problems: problemRows(r.Problems),
	}
}

func problemRows(list []snapshot.Problem) []problemRow {
	rows := []problemRow{}
	for _, p := range list {
		rows = append(rows, problemRow{p.Snapshot, p.Path, exact([]byte(p.Path)), p.Err.Error()})
	}
	return rows
}

func printProblems(w io.Writer, list []snapshot.Problem) {
	for _, p := range list {
		fmt.Fprintf(w, "  %s\n", problemText(&api.VerifyProblem{Snapshot: p.Snapshot, Message: p.Err.Error()}))
	}
}

func printRebuilt(w io.Writer, r *agent.Rebuilt) {
	fmt.Fprintf(w, "rebuilt the index of %s: %s, %s in %s\n", r.State, plural(r.Snapshots, "snapshot"), plural(r.Chunks, "chunk"), plural(r.Packs, "pack"))
	if r.OldIndex != "" {
		fmt.Fprintf(w, "  the old one is kept as %s until you remove it\n", r.OldIndex)
	}
	for _, id := range r.Deleted {
		fmt.Fprintf(w, "  snapshot %s, of which only a later one tells, is taken for deleted\n", id)
	}
	printProblems(w, r.Problems)
	fmt.Fprintln(w, "  the next snapshot is a full one; graphvol verify --read-data checks what is stored")
}
