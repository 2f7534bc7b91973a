package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"graphvol/agent/config"
	"graphvol/agent/preflight"
	"graphvol/agent/preflight/check"
	"graphvol/agent/preflight/pgroles"
)

// preflightDoc is the answer of preflight.
type preflightDoc struct {
	OK       bool        `json:"ok"`
	Revision int64       `json:"revision"` // of the configuration, if it is the centre's
	Checks   []check.Row `json:"checks"`
}

func (a *app) preflightCmd() *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Look at all that a backup needs, and say what mends what is missing",
		Long: `Looks at what a configuration names before anything runs: each path is there, of the
right kind, and open to this user; commands of hooks can be run; FUSE can be used; the
disks of state directories have room; there is memory; the clock is right; roles of
PostgreSQL may do what a backup needs. Run it as the
user that graphvol runs as. Nothing is changed or written.

What a node has from the cluster's configuration (graphvol cluster config) counts as it
does for its agent: it is looked at in the place of the file's own volumes.

Each thing that isn't as it must be is a line with the command that mends it. Exit code
1: there is at least one. Buckets are checked by graphvol target check.`,
		Example: `  graphvol preflight
  graphvol preflight --config graphvol.yaml --json`,
		Args: args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			own, err := config.Read(path)
			if err != nil {
				return err
			}
			c, revision, err := own.InForce()
			if err != nil {
				return err
			}
			return a.preflight(cmd.Context(), c, revision, asJSON)
		},
	}
	cmd.Flags().StringVar(&path, "config", config.Path, "the configuration")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) preflight(ctx context.Context, c *config.File, revision int64, asJSON bool) error {
	doc := preflightDoc{Revision: revision}
	var checker preflight.Checker
	for _, look := range []func(context.Context, *config.File) []check.Row{checker.Run, preflight.Clock} {
		doc.Checks = append(doc.Checks, look(ctx, c)...)
	}
	for _, pg := range c.Preflight.Postgres {
		doc.Checks = append(doc.Checks, pgroles.Check(ctx, pg)...)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	failed := check.Failed(doc.Checks)
	doc.OK = len(failed) == 0
	var err error
	if asJSON {
		err = printJSON(a.out, doc)
	} else {
		printChecks(a.out, failed, &doc)
	}
	if err == nil && !doc.OK {
		err = fmt.Errorf("%d of %s failed", len(failed), plural(int64(len(doc.Checks)), "check"))
	}
	return err
}

func printChecks(w io.Writer, failed []check.Row, doc *preflightDoc) {
	for _, r := range failed {
		fmt.Fprintln(w, r)
	}
	of := ""
	if doc.Revision != 0 {
		of = fmt.Sprintf(" of revision %d of the cluster's configuration", doc.Revision)
	}
	if len(failed) == 0 {
		fmt.Fprintf(w, "%s%s, all is right\n", plural(int64(len(doc.Checks)), "check"), of)
	}
}
