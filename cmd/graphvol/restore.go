package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"graphvol/agent"
	"graphvol/agent/api"
)

type restoreRow struct {
	Snapshot     string  `json:"snapshot"`
	Name         string  `json:"name"`
	Destination  string  `json:"destination"`
	Files        int64   `json:"files"`
	Bytes        int64   `json:"bytes"`
	WrittenBytes int64   `json:"written_bytes"`
	Removed      int64   `json:"removed"`
	DryRun       bool    `json:"dry_run"`
	DurationMS   float64 `json:"duration_ms"`
}

func (a *app) restoreCmd() *cobra.Command {
	var asJSON, remove, dryRun bool
	cmd := &cobra.Command{
		Use:   "restore VOLUME SNAPSHOT DEST [PATH...]",
		Short: "Copy a snapshot, or parts of it, to a directory",
		Long: `Copies a snapshot to the directory DEST, with owners, modes, times, extended attributes,
holes and hard links, in parallel. Every byte is verified before it is written. With
PATHs, which are relative to the volume's root, only those files and directories are
copied, to the same relative paths below DEST.

If DEST has the files already, only the blocks that differ are written: this is how a
volume is set back in place. Stop the database first, and restore into the mount, not
into the backing directory of a mounted volume (that is refused). Entries of DEST that
the snapshot doesn't have are kept, unless --delete is given.

A plain cp from MOUNT/.snapshots/NAME does the same for files that are missing.`,
		Example: `  graphvol restore /mnt/graph latest /tmp/copy
  graphvol restore /mnt/graph monday /tmp/one data/nodes.db
  graphvol restore /mnt/graph before-upgrade /mnt/graph --delete   # set the volume back`,
		Args:              args(cobra.MinimumNArgs(3), "VOLUME, SNAPSHOT, DEST and PATHs"),
		ValidArgsFunction: a.completeArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dest, err := filepath.Abs(args[2])
			if err != nil {
				return fmt.Errorf("make %s absolute: %w", args[2], err)
			}
			return a.restore(cmd, args[0], asJSON, &api.RestoreRequest{
				Snapshot: args[1], Destination: []byte(dest), Paths: bytesOf(args[3:]), DeleteExtra: remove, DryRun: dryRun,
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&remove, "delete", false, "remove entries of DEST that the snapshot doesn't have")
	f.BoolVar(&dryRun, "dry-run", false, "write nothing, only say what would be written")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) restore(cmd *cobra.Command, volume string, asJSON bool, req *api.RestoreRequest) error {
	begin := time.Now()
	c, err := a.open(cmd.Context(), volume)
	if err != nil {
		return err
	}
	defer c.Close()
	bar := newProgress(a.err, "restoring")
	defer bar.done()
	res, err := c.RestoreTo(cmd.Context(), req, bar.update, func(err error) { fmt.Fprintf(a.err, "graphvol: %s\n", agent.Message(err)) })
	bar.done()
	if err != nil {
		return err
	}
	took := time.Since(begin)
	if asJSON {
		return printJSON(a.out, restoreRow{
			Snapshot: res.GetSnapshot().GetId(), Name: res.GetSnapshot().GetName(), Destination: string(req.GetDestination()),
			Files: res.GetFiles(), Bytes: res.GetBytes(), WrittenBytes: res.GetWrittenBytes(), Removed: res.GetRemoved(),
			DryRun: req.GetDryRun(), DurationMS: millis(took),
		})
	}
	verb := "wrote"
	if req.GetDryRun() {
		verb = "would write"
	}
	fmt.Fprintf(a.out, "%s of %s in %s: %s %s", plural(res.GetFiles(), "file"), res.GetSnapshot().GetName(), shown(req.GetDestination()), verb, size(res.GetWrittenBytes()))
	fmt.Fprintf(a.out, " of %s in %s", size(res.GetBytes()), duration(took))
	if res.GetRemoved() > 0 {
		fmt.Fprintf(a.out, ", removed %d", res.GetRemoved())
	}
	fmt.Fprintln(a.out)
	return nil
}

func bytesOf(list []string) (out [][]byte) {
	for _, s := range list {
		out = append(out, []byte(s))
	}
	return out
}
