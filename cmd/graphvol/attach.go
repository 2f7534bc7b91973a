package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"graphvol/agent"
	"graphvol/agent/api"
	"graphvol/remote"
)

type attachRow struct {
	State      string       `json:"state"`
	Volume     string       `json:"volume"`
	Snapshots  int64        `json:"snapshots"`
	Packs      int64        `json:"packs"`
	Chunks     int64        `json:"chunks"`
	Sequence   uint64       `json:"sequence"`
	Problems   []problemRow `json:"problems"`
	DurationMS float64      `json:"duration_ms"`
}

func (a *app) attachCmd() *cobra.Command {
	var asJSON bool
	var key agent.KeySource
	var erasure, configPath string
	cmd := &cobra.Command{
		Use:   "attach URL... STATE | --config FILE MOUNT STATE",
		Short: "Use a copy of a store on a machine that has nothing else",
		Long: `Makes the state directory STATE of a copy of a store, as graphvol mount --target and
graphvol sync have made it. Its snapshots can then be listed, verified, compared and
restored: name STATE as the volume. Data is read where it is, when it is needed.

With --config the copy is the first one that a configuration has for the volume with the
mount point MOUNT.

STATE must not be there, or be empty. Nothing on the copy is changed. To go on with it,
restore a snapshot to a directory, and mount that with --state STATE; the first snapshot
is a full one, which stores only what the copy doesn't have. Before this machine may write
to the copy, it has to take it over: graphvol sync --take-over.`,
		Example: `  graphvol attach dir:/backup/graph /var/lib/graphvol/graph
  graphvol attach s3://backups/graph /var/lib/graphvol/graph --key recovery.txt
  graphvol attach dir:/a dir:/b dir:/c /var/lib/graphvol/graph --erasure 2+1
  graphvol snapshots /var/lib/graphvol/graph
  graphvol restore /var/lib/graphvol/graph latest /srv/graph`,
		Args: func(cmd *cobra.Command, given []string) error {
			if configPath != "" {
				return args(cobra.ExactArgs(2), "MOUNT and STATE")(cmd, given)
			}
			return args(cobra.MinimumNArgs(2), "URL and STATE")(cmd, given)
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := key.Check(); err != nil {
				return usageError{err}
			}
			urls := args[:len(args)-1]
			if configPath != "" {
				if urls, erasure, err = configuredCopy(configPath, args[0], erasure); err != nil {
					return err
				}
			}
			res, err := a.attach(cmd.Context(), urls, erasure, key, args[len(args)-1])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, attachRow{
					State: res.State, Volume: res.Volume, Snapshots: res.Snapshots, Packs: res.Packs, Chunks: res.Chunks, Sequence: res.Head.Sequence,
					Problems: problemRows(res.Problems), DurationMS: millis(res.Took),
				})
			}
			fmt.Fprintf(a.out, "attached %s (volume %s, head %d) in %s: %s\n", strings.Join(urls, " "), res.Volume, res.Head.Sequence, duration(res.Took), plural(res.Snapshots, "snapshot"))
			printProblems(a.out, res.Problems)
			return nil
		},
	}
	cmd.Flags().StringVar(&erasure, "erasure", "", "the copy is spread over all URLs in this layout, as 4+2")
	keyFlags(cmd, &key)
	cmd.Flags().StringVar(&configPath, "config", "", "take the copy from this file")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// keyFlags are the flags of what opens an encrypted copy.
func keyFlags(cmd *cobra.Command, key *agent.KeySource) {
	cmd.Flags().StringVar(&key.File, "key", "", "key file or recovery text of an encrypted copy")
	cmd.Flags().StringVar(&key.PassphraseFile, "passphrase-file", "", "a file with the passphrase of an encrypted copy (graphvol key add) in its first line")
}

func (a *app) attach(ctx context.Context, urls []string, erasure string, key agent.KeySource, state string) (agent.Attached, error) {
	bar := newProgress(a.err, "reading the copy's lists")
	defer bar.done()
	return agent.Attach(ctx, remote.Spec{URLs: urls, Erasure: erasure}, key, state,
		func(done, total int64) { bar.update(&api.Progress{DoneBytes: done, TotalBytes: total}) }, a.err)
}
