package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"graphvol/agent/api"
)

type problemRow struct {
	Snapshot   string `json:"snapshot,omitempty"`
	Path       string `json:"path,omitempty"`
	PathBase64 string `json:"path_base64,omitempty"` // if it isn't UTF-8
	Message    string `json:"message"`
}

type verifyRow struct {
	Snapshots int64        `json:"snapshots"`
	Chunks    int64        `json:"chunks"`
	Bytes     int64        `json:"bytes"`
	ReadData  bool         `json:"read_data"`
	Problems  []problemRow `json:"problems"`
}

func (a *app) verifyCmd() *cobra.Command {
	var asJSON, readData bool
	cmd := &cobra.Command{
		Use:   "verify VOLUME [SNAPSHOT...]",
		Short: "Check snapshots: manifests, hash chain, trees, and data",
		Long: `Checks the snapshots that are named, or all of them: their manifests and the chain of
hashes that links them, that every part of their trees is in the store, and with
--read-data every stored byte against its SHA-256. Each problem is one line; if there
is one, the exit code is 1.`,
		Example: `  graphvol verify /mnt/graph
  graphvol verify /mnt/graph latest --read-data`,
		Args:              args(cobra.MinimumNArgs(1), "VOLUME and SNAPSHOTs"),
		ValidArgsFunction: a.completeArgs(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			row, err := a.verify(cmd, args[0], &api.VerifyRequest{Snapshots: args[1:], ReadData: readData}, asJSON)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(a.out, row)
			} else if len(row.Problems) == 0 {
				fmt.Fprintf(a.out, "no problems in %s: %s, %s checked\n", plural(row.Snapshots, "snapshot"), plural(row.Chunks, "chunk"), size(row.Bytes))
			}
			if err == nil && len(row.Problems) > 0 {
				err = fmt.Errorf("%s in %s: graphvol repair %s mends what a copy elsewhere has whole; else restore what is still whole, and take a new snapshot of the volume",
					plural(int64(len(row.Problems)), "problem"), plural(row.Snapshots, "snapshot"), args[0])
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&readData, "read-data", false, "read and check all stored data too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) verify(cmd *cobra.Command, volume string, req *api.VerifyRequest, quiet bool) (*verifyRow, error) {
	c, err := a.open(cmd.Context(), volume)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stream, err := c.Verify(cmd.Context(), req)
	if err != nil {
		return nil, err
	}
	bar := newProgress(a.err, "verifying")
	defer bar.done()
	row, ended := &verifyRow{ReadData: req.GetReadData(), Problems: []problemRow{}}, false
	err = api.Each(stream, func(ev *api.VerifyEvent) error {
		bar.update(ev.GetProgress())
		if p := ev.GetProblem(); p != nil {
			row.Problems = append(row.Problems, problemRow{p.GetSnapshot(), string(p.GetPath()), exact(p.GetPath()), p.GetMessage()})
			if !quiet {
				fmt.Fprintln(a.out, problemText(p))
			}
		}
		if r := ev.GetResult(); r != nil {
			row.Snapshots, row.Chunks, row.Bytes, ended = r.GetSnapshots(), r.GetChunks(), r.GetBytes(), true
		}
		return nil
	})
	if err == nil && !ended {
		err = errors.New("the agent ended before it had checked everything; try again")
	}
	return row, err
}

func problemText(p *api.VerifyProblem) string {
	text := p.GetMessage()
	if len(p.GetPath()) > 0 {
		text = shown(p.GetPath()) + ": " + text
	}
	if p.GetSnapshot() != "" {
		text = p.GetSnapshot() + ": " + text
	}
	return text
}
