package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"graphvol/agent/api"
)

type dirtyRow struct {
	Path       string     `json:"path"`
	PathBase64 string     `json:"path_base64,omitempty"` // if it isn't UTF-8
	DirtyBytes int64      `json:"dirty_bytes"`
	Removed    bool       `json:"removed,omitempty"`
	Ranges     []rangeRow `json:"ranges,omitempty"`
}

func (a *app) dirtyCmd() *cobra.Command {
	var asJSON, ranges bool
	cmd := &cobra.Command{
		Use:   "dirty VOLUME",
		Short: "Show what has changed since the last snapshot, per file",
		Long: `Shows what has changed since the newest complete snapshot, file by file: what the
next snapshot will have to read. Bytes are counted in blocks of 4 KiB. A file of
0 bytes has changed in its attributes or its names only. Files that the snapshot has
and the volume has no more come last, with their paths in the snapshot.

Pages that the kernel holds back and has not written yet are not counted.`,
		Example: `  graphvol dirty /mnt/graph
  graphvol dirty /mnt/graph --ranges
  graphvol dirty /mnt/graph --json | jq .dirty_bytes`,
		Args:              args(cobra.ExactArgs(1), "one VOLUME"),
		ValidArgsFunction: a.completeVolume,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer c.Close()
			stream, err := c.Dirty(cmd.Context(), &api.DirtyRequest{Ranges: ranges})
			if err != nil {
				return err
			}
			if asJSON {
				return dirtyJSON(a.out, stream)
			}
			return dirtyText(a.out, stream)
		},
	}
	cmd.Flags().BoolVar(&ranges, "ranges", false, "also show which bytes of each file")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func dirtyText(w io.Writer, stream grpc.ServerStreamingClient[api.DirtyFile]) error {
	var files, bytes int64
	err := api.Each(stream, func(f *api.DirtyFile) error {
		files++
		bytes += f.GetDirtyBytes()
		what := shown(f.GetPath())
		if f.GetRemoved() {
			what += " (removed)"
		}
		fmt.Fprintf(w, "%10s  %s\n", size(f.GetDirtyBytes()), what)
		printRanges(w, f.GetRanges())
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%10s  in %s\n", size(bytes), plural(files, "file"))
	return nil
}

func printRanges(w io.Writer, ranges []*api.Range) {
	for _, r := range ranges {
		fmt.Fprintf(w, "%12s%d-%d\n", "", r.GetOffset(), r.GetOffset()+r.GetLength())
	}
}

// dirtyJSON writes the files as they come: there may be millions.
func dirtyJSON(w io.Writer, stream grpc.ServerStreamingClient[api.DirtyFile]) error {
	var bytes int64
	list := newJSONList(w, "files")
	err := api.Each(stream, func(f *api.DirtyFile) error {
		bytes += f.GetDirtyBytes()
		return list.add(dirtyRow{name(f.GetPath()), exact(f.GetPath()), f.GetDirtyBytes(), f.GetRemoved(), rangesOf(f.GetRanges())})
	})
	if err != nil {
		return err
	}
	return list.end("dirty_bytes", bytes)
}

// jsonList writes an object whose first member is an array of unknown length.
type jsonList struct {
	w    io.Writer
	any  bool
	name string
}

func newJSONList(w io.Writer, name string) *jsonList { return &jsonList{w: w, name: name} }

func (l *jsonList) add(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	before := ",\n    "
	if !l.any {
		before = fmt.Sprintf("{\n  %q: [\n    ", l.name)
	}
	l.any = true
	if _, err := fmt.Fprintf(l.w, "%s%s", before, b); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// end closes the array and adds members, given as name, value, name, value and so on.
func (l *jsonList) end(members ...any) error {
	if l.any {
		fmt.Fprint(l.w, "\n  ]")
	} else {
		fmt.Fprintf(l.w, "{\n  %q: []", l.name)
	}
	for i := 0; i+1 < len(members); i += 2 {
		b, err := json.Marshal(members[i+1])
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		fmt.Fprintf(l.w, ",\n  %q: %s", members[i], b)
	}
	if _, err := fmt.Fprint(l.w, "\n}\n"); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
