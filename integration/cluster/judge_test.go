package cluster

import (
	"context"
	"slices"
	"strings"
	"time"
)

// final waits until all records are final, and gives them.
func (s *scene) final() (rows []Row) {
	s.Helper()
	s.eventually("all records are final", func(ctx context.Context) bool {
		var err error
		if rows, err = s.y.Snapshots(ctx); err != nil {
			return false // it has just come back
		}
		return !slices.ContainsFunc(rows, func(r Row) bool { return !r.Final() })
	})
	return rows
}

// judge looks at the records of the snapshot: each is final, and complete on all volumes or none.
func (s *scene) judge(mark []uint64, out outcome) {
	s.Helper()
	rows := slices.DeleteFunc(s.final(), func(r Row) bool { return r.Name != s.name })
	complete := false
	for _, r := range rows {
		if r.State != "complete" {
			if r.Error == "" || strings.Contains(r.Error, "\n") {
				s.Errorf("%s has failed, and its record says %q", s.name, r.Error)
			}
			continue
		}
		complete = true
		s.checkWhole(r)
		found := s.p.Check(mark, InSnapshot(r.Name))
		if err := found.Err(); err != nil {
			s.Error(err)
		}
	}
	switch {
	case out.err == nil && (out.row.State != "complete" || !complete):
		s.Errorf("the command says that %s is %s; its records: %+v", s.name, out.row.State, rows)
	case out.err != nil:
		s.oneLine(out.err, "")
	}
	s.Logf("%s: complete: %v; the command: %v; longest write %v", s.name, complete, out.err, s.p.Longest().Round(time.Millisecond))
}

// nothing fails the test if a volume has a complete snapshot of a try that has failed, as one may that was decided on.
func (s *scene) nothing() {
	s.Helper()
	rows, err := s.y.Snapshots(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	parts := make(map[string]bool)
	for _, r := range rows {
		for _, n := range r.Nodes {
			for _, p := range n.Volumes {
				parts[p.Snapshot] = r.State == "failed"
			}
		}
	}
	for _, v := range s.volumes() {
		all, err := v.Snapshots(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		for _, snap := range all {
			if snap.State == "complete" && parts[snap.ID] {
				s.Errorf("%s has %s, which was decided on though a part of it was gone", v.Mount, snap.Name)
			}
		}
	}
}

// leftovers fails the test if a volume has snapshots that are no part of a complete one of the cluster.
func (s *scene) leftovers() {
	s.Helper()
	var left []string
	s.eventually("nothing is left of snapshots that have failed", func(ctx context.Context) bool {
		rows, err := s.y.Snapshots(ctx)
		if err != nil {
			s.Fatal(err)
		}
		known := make(map[string]bool)
		for _, r := range rows {
			for _, n := range r.Nodes {
				for _, p := range n.Volumes {
					known[p.Snapshot] = known[p.Snapshot] || r.State == "complete"
				}
			}
		}
		left = nil
		for _, v := range s.volumes() {
			all, err := v.Snapshots(ctx)
			if err != nil {
				s.Fatal(err)
			}
			for _, snap := range all {
				if snap.State != "failed" && !known[snap.ID] {
					left = append(left, v.Mount+" "+snap.Name+" "+snap.State)
				}
			}
		}
		return len(left) == 0
	})
}
