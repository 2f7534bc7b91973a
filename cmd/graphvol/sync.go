package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"graphvol/agent/api"
)

// remoteRow is what --json tells of a copy of the store.
type remoteRow struct {
	Name       string     `json:"name"`
	URLs       []string   `json:"urls"`
	Former     []string   `json:"former,omitempty"`
	Erasure    string     `json:"erasure,omitempty"`
	Encrypted  bool       `json:"encrypted"`
	Phase      string     `json:"phase,omitempty"`
	Snapshots  int64      `json:"snapshots"`
	Sequence   uint64     `json:"sequence"`
	Degraded   int64      `json:"degraded,omitempty"`
	DoneBytes  int64      `json:"done_bytes,omitempty"`
	TotalBytes int64      `json:"total_bytes,omitempty"`
	Error      string     `json:"error,omitempty"`
	Next       *time.Time `json:"next,omitempty"`
	Synced     *time.Time `json:"synced,omitempty"`
	Scrubbed   *time.Time `json:"scrubbed,omitempty"`
	Problems   int64      `json:"problems,omitempty"`
}

func remoteRows(list []*api.RemoteInfo) []remoteRow {
	rows := []remoteRow{}
	for _, r := range list {
		row := remoteRow{
			Name: r.GetName(), URLs: r.GetUrls(), Former: r.GetFormer(), Erasure: r.GetErasure(), Encrypted: r.GetEncrypted(), Phase: r.GetPhase(), Snapshots: r.GetSnapshots(),
			Sequence: r.GetSequence(), Degraded: r.GetDegraded(), DoneBytes: r.GetDoneBytes(), TotalBytes: r.GetTotalBytes(), Error: r.GetError(),
			Next: timeIn(r.GetNext()), Synced: timeIn(r.GetSynced()), Scrubbed: timeIn(r.GetScrubbed()), Problems: r.GetProblems(),
		}
		rows = append(rows, row)
	}
	return rows
}

// timeIn gives a time for JSON; nil: there is none.
func timeIn(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

func (a *app) syncCmd() *cobra.Command {
	req := &api.SyncRequest{}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sync VOLUME",
		Short: "Copy snapshots to the volume's targets",
		Long: `Copies to the targets of a volume what they lack: those that were named when it was
mounted (graphvol mount --target). While a volume is mounted that is done in the
background anyway; sync begins at once, and with --wait returns when every copy has all
snapshots that are complete now. Of a volume that isn't mounted it copies itself.

It may be interrupted at any time: what was copied stays, and the next run goes on.

A copy has one writer. If another state directory has written to it, or it was changed
by somebody else, nothing is copied and the reason is told. --take-over makes this state
directory the writer, and copies again what is missing there.`,
		Example: `  graphvol sync /mnt/graph --wait
  graphvol sync /srv/graph              # not mounted`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := a.sync(cmd, args[0], req)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, struct {
					Remotes []remoteRow `json:"remotes"`
				}{remoteRows(list)})
			}
			for _, r := range remoteRows(list) {
				printRemote(a.out, "", r)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&req.Wait, "wait", false, "return when the copies have all snapshots that are complete now")
	cmd.Flags().BoolVar(&req.TakeOver, "take-over", false, "be the writer of the copies from now on")
	cmd.Flags().StringVar(&req.Remote, "copy", "", "only this one, as graphvol status names it (default: all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) sync(cmd *cobra.Command, volume string, req *api.SyncRequest) ([]*api.RemoteInfo, error) {
	c, err := a.open(cmd.Context(), volume)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stream, err := c.Sync(cmd.Context(), req)
	if err != nil {
		return nil, err
	}
	bar := newProgress(a.err, "copying")
	defer bar.done()
	var list []*api.RemoteInfo
	err = api.Each(stream, func(ev *api.SyncEvent) error {
		bar.update(ev.GetProgress())
		if len(ev.GetRemotes()) > 0 {
			list = ev.GetRemotes()
		}
		return nil
	})
	return list, err
}

// printRemote tells of a copy in a line.
func printRemote(w io.Writer, indent string, r remoteRow) {
	place := strings.Join(r.URLs, " ")
	if r.Erasure != "" {
		place = fmt.Sprintf("%d targets (%s)", len(r.URLs), r.Erasure)
	}
	fmt.Fprintf(w, "%scopy %s at %s: %s", indent, r.Name, place, plural(r.Snapshots, "snapshot"))
	switch {
	case r.Phase == "copying" && r.TotalBytes > 0:
		fmt.Fprintf(w, ", copying: %s of %s", size(r.DoneBytes), size(r.TotalBytes))
	case r.Phase != "" && r.Error == "":
		fmt.Fprintf(w, ", %s", r.Phase)
	}
	fmt.Fprintln(w)
	if len(r.Former) > 0 {
		fmt.Fprintf(w, "%s  being moved away from %s: graphvol repair VOLUME goes on with it\n", indent, strings.Join(r.Former, " "))
	}
	if r.Degraded > 0 {
		fmt.Fprintf(w, "%s  %s not on all targets: some are away, or full\n", indent, plural(r.Degraded, "object"))
	}
	if r.Scrubbed != nil {
		found := "nothing wrong"
		if r.Problems > 0 {
			found = plural(r.Problems, "problem") + "; graphvol repair VOLUME mends what the next round doesn't"
		}
		fmt.Fprintf(w, "%s  read whole until %s: %s\n", indent, r.Scrubbed.Local().Format(time.DateTime), found)
	}
	if r.Error != "" {
		fmt.Fprintf(w, "%s  not up to date: %s\n", indent, r.Error)
	}
}
