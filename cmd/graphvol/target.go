package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"graphvol/agent"
)

// targetRow is what --json tells of a target.
type targetRow struct {
	URL       string `json:"url"`
	Copy      string `json:"copy"`
	Erasure   string `json:"erasure,omitempty"`
	Encrypted bool   `json:"encrypted"`
}

// checkRow is what --json tells of a target that was checked.
type checkRow struct {
	URL   string    `json:"url"`
	OK    bool      `json:"ok"`
	Found string    `json:"found,omitempty"`
	Steps []stepRow `json:"steps"`
	Error string    `json:"error,omitempty"`
}

type stepRow struct {
	Name           string  `json:"name"`
	MS             float64 `json:"ms"`
	BytesPerSecond int64   `json:"bytes_per_second,omitempty"`
	Error          string  `json:"error,omitempty"`
}

func (a *app) targetCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "target",
		Short: "List and check the targets of copies",
		Long: `A target is a place for a copy of a volume's store: a directory (dir:/path) or a bucket
(s3://bucket/prefix?endpoint=HOST). docs/targets.md has all options.`,
		Example: `  graphvol target check s3://backups/graph
  graphvol target list /mnt/graph`,
		Args: func(cmd *cobra.Command, args []string) error {
			return usageError{errors.New("choose one of the commands below target")}
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(a.targetListCmd(), a.targetCheckCmd())
	return cmd
}

func (a *app) targetListCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list VOLUME",
		Short: "List the targets of a volume's copies",
		Long: `Lists the targets of a volume's copies. Nothing is asked of them: graphvol status tells
how the copies fare, graphvol target check whether a target works.`,
		Example:           `  graphvol target list /mnt/graph`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := agent.Targets(cmd.Context(), args[0], a.err)
			if err != nil {
				return err
			}
			rows := []targetRow{}
			for _, t := range all {
				rows = append(rows, targetRow(t))
			}
			if asJSON {
				return printJSON(a.out, struct {
					Targets []targetRow `json:"targets"`
				}{rows})
			}
			for _, r := range rows {
				printTarget(a.out, r)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printTarget(w io.Writer, r targetRow) {
	what := "all of it"
	if r.Erasure != "" {
		what = "one of " + r.Erasure
	}
	if r.Encrypted {
		what += ", encrypted"
	}
	fmt.Fprintf(w, "copy %s: %s (%s)\n", r.Copy, r.URL, what)
}

func (a *app) targetCheckCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check URL... | VOLUME",
		Short: "Try whether targets can be used",
		Long: `Does at each target all that a copy needs: lists, writes, refuses to write what is there,
reads, replaces, removes. It uses objects of its own below probe/, 8 MiB at most, and
removes them again. So missing rights, wrong options, and servers that lack something show
before a backup depends on them. What is on the target is told, and not changed.

Of a VOLUME it checks the targets of all copies. Exit code 1: at least one can't be used.`,
		Example: `  graphvol target check dir:/mnt/backup/graph 's3://backups/graph?endpoint=s3.example.com'
  graphvol target check /mnt/graph`,
		Args:              args(cobra.MinimumNArgs(1), "URL or VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			urls, err := a.targetURLs(cmd, args)
			if err != nil {
				return err
			}
			rows, bad := []checkRow{}, 0
			for _, url := range urls {
				row := checkRowOf(agent.CheckTarget(cmd.Context(), url))
				if !row.OK {
					bad++
				}
				if !asJSON {
					printCheck(a.out, row)
				}
				rows = append(rows, row)
			}
			if asJSON {
				err = printJSON(a.out, struct {
					Targets []checkRow `json:"targets"`
				}{rows})
			}
			if err == nil && bad > 0 {
				err = fmt.Errorf("%d of %s can't be used", bad, plural(int64(len(rows)), "target"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// targetURLs are the URLs that are named, or those of a volume that is.
func (a *app) targetURLs(cmd *cobra.Command, args []string) (urls []string, err error) {
	for _, arg := range args {
		if agent.IsTargetURL(arg) {
			urls = append(urls, arg)
			continue
		}
		all, err := agent.Targets(cmd.Context(), arg, a.err)
		if err != nil {
			return nil, err
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("the volume %s has no copies elsewhere: name a target when it is mounted (graphvol mount --target), or check a URL (dir:/path, s3://bucket/prefix)", arg)
		}
		for _, t := range all {
			urls = append(urls, t.URL)
		}
	}
	return urls, nil
}

func checkRowOf(c agent.Checked) checkRow {
	row := checkRow{URL: c.URL, OK: c.Err == nil, Steps: []stepRow{}}
	for _, s := range c.Steps {
		step := stepRow{Name: s.Name, MS: millis(s.Took)}
		if s.Bytes > 0 && s.Took > 0 {
			step.BytesPerSecond = int64(float64(s.Bytes) / s.Took.Seconds())
		}
		if s.Err != nil {
			step.Error = agent.Message(s.Err)
		}
		row.Steps = append(row.Steps, step)
	}
	if c.Err != nil {
		row.Error = agent.Message(c.Err)
	} else {
		row.Found = c.Found.String()
	}
	return row
}

func printCheck(w io.Writer, r checkRow) {
	if r.OK {
		fmt.Fprintf(w, "%s: works; on it: %s\n", r.URL, r.Found)
	} else {
		fmt.Fprintf(w, "%s: can't be used\n", r.URL)
	}
	for _, s := range r.Steps {
		speed := ""
		switch {
		case s.Error != "":
			speed = "  failed: " + s.Error
		case s.BytesPerSecond > 0:
			speed = "  " + size(s.BytesPerSecond) + "/s"
		}
		fmt.Fprintf(w, "  %s\n", strings.TrimRight(fmt.Sprintf("%-30s %8.1f ms%s", s.Name, s.MS, speed), " "))
	}
	if len(r.Steps) == 0 {
		fmt.Fprintf(w, "  %s\n", r.Error)
	}
}
