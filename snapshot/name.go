package snapshot

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"graphvol/index"
)

// Latest is the reference to the newest complete snapshot.
const Latest = "latest"

// CheckName returns an error that wraps ErrBadName if a snapshot can't have the name: it is a directory's name in the
// snapshot tree, and must be usable as a reference.
func CheckName(name string) error {
	why := ""
	switch {
	case name == "":
		why = "it is empty"
	case len(name) > 255:
		why = fmt.Sprintf("it has %d bytes, at most 255 are possible", len(name))
	case name == "." || name == "..":
		why = "it means a directory"
	case name == Latest:
		why = "it always means the newest snapshot"
	case !utf8.ValidString(name):
		why = "it is not UTF-8"
	case strings.ContainsRune(name, '/'):
		why = "it contains a slash"
	case strings.ContainsFunc(name, unicode.IsControl):
		why = "it contains a control character"
	case strings.HasPrefix(name, "-"):
		why = "it begins with a dash, as options do"
	}
	if why != "" {
		return fmt.Errorf("%w %q: %s; choose another", ErrBadName, name, why)
	}
	return nil
}

// DefaultName is the name of a snapshot that the user gave none, on the n-th try, from 1 on: the names before may be taken, by one of the same second, or of before the clock was put back.
func DefaultName(t time.Time, n int) string {
	name := t.UTC().Format("2006-01-02T15-04-05Z")
	if n > 1 {
		name += fmt.Sprintf("-%d", n)
	}
	return name
}

// Snapshots gives the catalogue, oldest first.
func (r *Repo) Snapshots() ([]index.Snapshot, error) {
	all, err := r.db.Snapshots()
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return all, nil
}

// Newest is the newest complete snapshot; false if there is none.
func (r *Repo) Newest() (index.Snapshot, bool, error) {
	all, err := r.Snapshots()
	if err != nil {
		return index.Snapshot{}, false, err
	}
	snap, ok := newest(all)
	return snap, ok, nil
}

func newest(all []index.Snapshot) (index.Snapshot, bool) {
	for _, s := range slices.Backward(all) {
		if s.State == index.StateComplete {
			return s, true
		}
	}
	return index.Snapshot{}, false
}

// Resolve finds a snapshot by name, id, unique prefix of either, or as "latest" (the newest complete one). A name goes before an id,
// a whole one before a prefix, a snapshot that didn't fail before one that did. Without a match the error wraps
// ErrNoSnapshot and lists names that are near.
func (r *Repo) Resolve(ref string) (index.Snapshot, error) {
	all, err := r.Snapshots()
	if err != nil {
		return index.Snapshot{}, err
	}
	return resolve(all, ref)
}

func resolve(all []index.Snapshot, ref string) (index.Snapshot, error) {
	if ref == "" {
		return index.Snapshot{}, fmt.Errorf("%w: the reference is empty", ErrNoSnapshot)
	}
	if ref == Latest {
		if s, ok := newest(all); ok {
			return s, nil
		}
		return index.Snapshot{}, fmt.Errorf("%w: no snapshot is complete yet", ErrNoSnapshot)
	}
	failed := func(s *index.Snapshot) bool { return s.State == index.StateFailed }
	for _, match := range []func(s *index.Snapshot) bool{
		func(s *index.Snapshot) bool { return s.Name == ref && !failed(s) },
		func(s *index.Snapshot) bool { return s.ID == ref },
		func(s *index.Snapshot) bool { return s.Name == ref },
		func(s *index.Snapshot) bool {
			return !failed(s) && (strings.HasPrefix(s.Name, ref) || strings.HasPrefix(s.ID, ref))
		},
	} {
		var found []index.Snapshot
		for i := range all {
			if match(&all[i]) {
				found = append(found, all[i])
			}
		}
		if len(found) == 1 || len(found) > 1 && found[len(found)-1].Name == ref {
			return found[len(found)-1], nil
		}
		if len(found) > 1 {
			return index.Snapshot{}, fmt.Errorf("%w: %q can mean %s; give more of it", ErrNoSnapshot, ref, listNames(found))
		}
	}
	return index.Snapshot{}, noSnapshot(all, ref)
}

func listNames(snaps []index.Snapshot) string {
	var names []string
	for _, s := range snaps[:min(len(snaps), 5)] {
		names = append(names, s.Name)
	}
	if len(snaps) > 5 {
		names = append(names, fmt.Sprintf("%d more", len(snaps)-5))
	}
	return strings.Join(names, ", ")
}

// noSnapshot is the error for a reference without a match.
func noSnapshot(all []index.Snapshot, ref string) error {
	type candidate struct {
		name string
		dist int
	}
	var near []candidate
	for _, s := range all {
		if s.State == index.StateFailed {
			continue
		}
		d := editDistance(s.Name, ref)
		if d <= 1+len(ref)/4 || strings.Contains(s.Name, ref) {
			near = append(near, candidate{s.Name, d})
		}
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return cmp.Compare(a.dist, b.dist) })
	if len(near) == 0 {
		return fmt.Errorf("%w: %q; `graphvol snapshots VOLUME` lists them", ErrNoSnapshot, ref)
	}
	var names []string
	for _, c := range near[:min(len(near), 3)] {
		names = append(names, c.name)
	}
	return fmt.Errorf("%w: %q; did you mean %s?", ErrNoSnapshot, ref, strings.Join(names, ", "))
}

// editDistance is the number of characters to insert, delete or replace to turn a into b.
func editDistance(a, b string) int {
	ra, rb := []rune(a), []rune(b)
	row := make([]int, len(rb)+1)
	for j := range row {
		row[j] = j
	}
	for i, x := range ra {
		diag := row[0]
		row[0] = i + 1
		for j, y := range rb {
			cost := diag
			if x != y {
				cost = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], cost
		}
	}
	return row[len(rb)]
}
