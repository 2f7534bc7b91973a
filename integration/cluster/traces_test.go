package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"graphvol/integration/volume"
)

// traces: the log lines of one request have one id, in every process that has worked on it.
func (t *test) traces() {
	row := t.snapshot("traced")
	if len(row.Trace) != 32 {
		t.Fatalf("the trace's id is %q", row.Trace)
	}
	for _, n := range t.Nodes {
		t.logged(n.logPath(), row.Trace, "preparing a snapshot of the cluster")
		for _, v := range n.Volumes {
			t.logged(volumeLog(v), row.Trace, "the snapshot is taken", "the snapshot is complete", "held")
		}
	}
	t.tracesOfFailures()
	t.tracesOfVolumes(t.Nodes[0].Volumes[0])
}

// tracesOfFailures: who sees the error finds the lines that belong to it.
func (t *test) tracesOfFailures() {
	n := t.Nodes[1]
	t.set(n, settings{volume: t.withHooks(n)})
	if err := os.WriteFile(n.dir("fail"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(n.dir("fail"))
	ctx, cancel := t.bounded()
	defer cancel()
	_, err := t.Nodes[0].Snapshot(ctx, "untaken")
	all, lerr := t.Nodes[0].Snapshots(ctx)
	if err == nil || lerr != nil {
		t.Fatalf("%v, %v", err, lerr)
	}
	i := slices.IndexFunc(all, func(r Row) bool { return r.Name == "untaken" })
	if i < 0 || all[i].Trace == "" {
		t.Fatalf("no record with a trace: %+v", all)
	}
	t.failed(err, 1, "with trace_id "+all[i].Trace)
	if list, err := t.Nodes[0].Run(ctx, "snapshots"); err != nil || !strings.Contains(list, "(trace_id "+all[i].Trace+")") {
		t.Errorf("the list of snapshots has no trace, %v: %s", err, list)
	}
	t.logged(n.logPath(), all[i].Trace, "a hook has failed", "this node's part of a snapshot of the cluster has failed")
}

// tracesOfVolumes: a command on one volume begins a trace as well, to which belongs what goes on without it.
func (t *test) tracesOfVolumes(v *volume.Volume) {
	ctx, cancel := t.bounded()
	defer cancel()
	if _, err := v.Snapshot(ctx, "alone", "--no-wait"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.WaitComplete(ctx, "alone"); err != nil {
		t.Fatal(err)
	}
	var taken string
	for _, l := range logLines(volumeLog(v)) {
		if l.Name == "alone" && l.Msg == "the snapshot is taken" {
			taken = l.Trace
		}
	}
	t.logged(volumeLog(v), taken, "the snapshot is complete")
}

func volumeLog(v *volume.Volume) string { return filepath.Join(v.StateDir(), "log", "agent.log") }

// logged waits until a log has lines with some texts that belong to a trace.
func (t *test) logged(path, trace string, texts ...string) {
	t.Helper()
	if trace == "" {
		t.Errorf("%s: no trace", path)
		return
	}
	for _, text := range texts {
		t.eventually(path+" has a line of the trace "+trace+": "+text, func(context.Context) bool {
			return slices.ContainsFunc(logLines(path), func(l logLine) bool { return l.Trace == trace && l.Span != "" && l.Msg == text })
		})
	}
}

type logLine struct {
	Msg   string `json:"msg"`
	Name  string `json:"name"`
	Trace string `json:"trace_id"`
	Span  string `json:"span_id"`
}

// logLines are those of a log; one that is just being written is left out.
func logLines(path string) (all []logLine) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for s := bufio.NewScanner(strings.NewReader(string(raw))); s.Scan(); {
		var l logLine
		if json.Unmarshal(s.Bytes(), &l) == nil {
			all = append(all, l)
		}
	}
	return all
}
