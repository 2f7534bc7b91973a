package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"graphvol/agent/api"
	"graphvol/chunkstore/limit"
)

// maxFindings bounds what is listed of one copy.
const maxFindings = 100

// findingRow is an object that isn't as it should be.
type findingRow struct {
	Object  string `json:"object"`
	Trouble string `json:"trouble"`
	Message string `json:"message"`
	Mended  bool   `json:"mended"`
	Lost    bool   `json:"lost,omitempty"`
}

// scrubRow is what was found in a copy, or in the volume's own store.
type scrubRow struct {
	Name      string       `json:"name,omitempty"`
	Objects   int64        `json:"objects"`
	ReadBytes int64        `json:"read_bytes"`
	Weak      int64        `json:"weak"`
	Damaged   int64        `json:"damaged"`
	Missing   int64        `json:"missing"`
	Mended    int64        `json:"mended"`
	Lost      int64        `json:"lost"`
	Away      []string     `json:"away,omitempty"`
	Error     string       `json:"error,omitempty"`
	Findings  []findingRow `json:"findings"` // the first of them
}

func (r *scrubRow) found() int64 { return r.Weak + r.Damaged + r.Missing }
func (r *scrubRow) left() int64  { return r.found() - r.Mended }

// scrubDoc is the answer of scrub and repair.
type scrubDoc struct {
	Store  *scrubRow    `json:"store,omitempty"`
	Copies []scrubRow   `json:"copies"`
	Lost   []problemRow `json:"lost"`
}

// left tells how much isn't as it should be, and why something wasn't looked at.
func (d *scrubDoc) left() (problems int64, failed error) {
	rows := d.Copies
	if d.Store != nil {
		rows = append(rows[:len(rows):len(rows)], *d.Store)
	}
	for _, r := range rows {
		problems += r.left()
		switch {
		case failed != nil:
		case r.Error != "":
			failed = errors.New(r.Error)
		case len(r.Away) > 0:
			failed = fmt.Errorf("copy %s: what is on %s was not read: it doesn't answer", r.Name, strings.Join(r.Away, ", "))
		}
	}
	return problems, failed
}

func (a *app) scrubCmd() *cobra.Command {
	req := &api.ScrubRequest{}
	var asJSON bool
	var rate string
	cmd := &cobra.Command{
		Use:   "scrub VOLUME",
		Short: "Read everything of a volume's copies, and find what is damaged",
		Long: `Reads all that the copies of a volume hold: every shard on every target, the content of
every pack and manifest, heads and keys. What can still be read but has lost shards is
weak; what can't be read, or isn't what it should be, is damaged. If anything is wrong
the exit code is 1, and the next round of copying mends what it can; graphvol repair
does it at once.

While a volume is mounted its copies are scrubbed by themselves (graphvol mount
--scrub-every). The volume's own store is read by graphvol verify --read-data.`,
		Example: `  graphvol scrub /mnt/graph
  graphvol scrub /mnt/graph --copy r1 --limit 50MiB/s`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Limit, err = limit.ParseRate(rate); err != nil {
				return usageError{err}
			}
			doc, err := a.scrub(cmd, args[0], asJSON, "reading", func(c api.VolumeClient) (grpc.ServerStreamingClient[api.ScrubEvent], error) {
				return c.Scrub(cmd.Context(), req)
			})
			if err != nil {
				return err
			}
			problems, failed := doc.left()
			switch {
			case failed != nil:
				return failed
			case problems > 0:
				return fmt.Errorf("%s in the copies: the next round of copying mends what it can, graphvol repair %s does it now", plural(problems, "problem"), args[0])
			}
			return nil
		},
	}
	scrubFlags(cmd, &req.Remote, &rate, &asJSON)
	return cmd
}

func scrubFlags(cmd *cobra.Command, remote, rate *string, asJSON *bool) {
	cmd.Flags().StringVar(remote, "copy", "", "only this one, as graphvol status names it (default: all)")
	cmd.Flags().StringVar(rate, "limit", "0", "read so many bytes a second of a copy at most, as 50MiB/s; 0: no limit")
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

// scrub runs a scrub or a repair and prints what it tells.
func (a *app) scrub(cmd *cobra.Command, volume string, asJSON bool, what string,
	call func(api.VolumeClient) (grpc.ServerStreamingClient[api.ScrubEvent], error)) (*scrubDoc, error) {
	c, err := a.open(cmd.Context(), volume)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stream, err := call(c)
	if err != nil {
		return nil, err
	}
	bar := newProgress(a.err, what)
	defer bar.done()
	told := scrubTold{out: a.out, doc: scrubDoc{Copies: []scrubRow{}, Lost: []problemRow{}}, findings: make(map[string][]findingRow)}
	if asJSON {
		told.out = io.Discard
	}
	err = api.Each(stream, func(ev *api.ScrubEvent) error {
		if bar.update(ev.GetProgress()); ev.GetProgress() != nil {
			bar.stage(what + " " + placeOf(ev.GetStage()))
		}
		told.take(ev)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(told.doc.Copies) == 0:
		return nil, errors.New("the agent ended before everything was read; try again")
	case asJSON:
		return &told.doc, printJSON(a.out, &told.doc)
	}
	return &told.doc, nil
}

// scrubTold is what a scrub or repair has told so far.
type scrubTold struct {
	out      io.Writer // gets it in words
	doc      scrubDoc
	findings map[string][]findingRow // by copy
}

func (t *scrubTold) take(ev *api.ScrubEvent) {
	if f := ev.GetFinding(); f != nil && len(t.findings[f.GetRemote()]) < maxFindings {
		row := findingRow{f.GetObject(), f.GetTrouble(), f.GetMessage(), f.GetMended(), f.GetLost()}
		t.findings[f.GetRemote()] = append(t.findings[f.GetRemote()], row)
		fmt.Fprintf(t.out, "%s: %s\n", placeOf(f.GetRemote()), row)
	}
	if p := ev.GetLost(); p != nil {
		t.doc.Lost = append(t.doc.Lost, problemRow{p.GetSnapshot(), string(p.GetPath()), exact(p.GetPath()), p.GetMessage()})
		fmt.Fprintln(t.out, "lost: "+problemText(p))
	}
	for _, r := range ev.GetResults() {
		fmt.Fprintln(t.out, t.doc.add(r, t.findings[r.GetRemote()]))
	}
}

// placeOf names a copy, or the volume's own store, which has no name.
func placeOf(remote string) string {
	if remote == "" {
		return "store"
	}
	return "copy " + remote
}

func (d *scrubDoc) add(r *api.ScrubResult, findings []findingRow) *scrubRow {
	row := scrubRow{
		Name: r.GetRemote(), Objects: r.GetObjects(), ReadBytes: r.GetBytes(), Weak: r.GetWeak(), Damaged: r.GetDamaged(), Missing: r.GetMissing(),
		Mended: r.GetMended(), Lost: r.GetLost(), Away: r.GetAway(), Error: r.GetError(), Findings: findings,
	}
	if row.Findings == nil {
		row.Findings = []findingRow{}
	}
	if row.Name == "" {
		d.Store = &row
	} else {
		d.Copies = append(d.Copies, row)
	}
	return &row
}

func (f findingRow) String() string {
	switch {
	case f.Mended:
		return fmt.Sprintf("mended %s, which was %s: %s", f.Object, f.Trouble, f.Message)
	case f.Lost:
		return fmt.Sprintf("%s is %s, and nobody else has it: %s", f.Object, f.Trouble, f.Message)
	}
	return fmt.Sprintf("%s is %s: %s", f.Object, f.Trouble, f.Message)
}

func (r *scrubRow) String() string {
	text := fmt.Sprintf("%s: %s, %s read, ", placeOf(r.Name), plural(r.Objects, "object"), size(r.ReadBytes))
	if r.found() == 0 {
		return text + "nothing wrong"
	}
	var parts []string
	for _, p := range []struct {
		n    int64
		what string
	}{{r.Weak, "weak"}, {r.Damaged, "damaged"}, {r.Missing, "missing"}, {r.Mended, "mended"}, {r.Lost, "lost"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	if more := r.found() - int64(len(r.Findings)); more > 0 {
		parts = append(parts, fmt.Sprintf("%d of these not listed; the log has them", more))
	}
	return text + strings.Join(parts, ", ")
}
