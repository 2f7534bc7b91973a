package remote

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"graphvol/chunkstore/erasure"
	"graphvol/snapshot"
)

// Spec says where a remote is, and in what form.
type Spec struct {
	URLs    []string `json:"urls"`              // of its targets
	Erasure string   `json:"erasure,omitempty"` // "K+M": spread over the targets; empty: there is one
	Encrypt bool     `json:"encrypt,omitempty"`
	// Former are URLs of targets that objects are moved away from: nothing is put there any more, and what is there is read. Spread ones only.
	Former []string `json:"former,omitempty"`
}

// String names the remote's place for people.
func (s Spec) String() string {
	if s.Erasure == "" {
		return strings.Join(s.URLs, ", ")
	}
	return fmt.Sprintf("%d targets (%s)", len(s.URLs), s.Erasure)
}

// ErasureTargets is how many targets a layout, "K+M", needs at least.
func ErasureTargets(layout string) (int, error) {
	l, err := erasure.ParseLayout(layout)
	return l.Data + l.Parity, err
}

// CheckErasure says whether a layout, "K+M", can be spread over so many targets.
func CheckErasure(layout string, targets int) error {
	n, err := ErasureTargets(layout)
	if err == nil && targets < n {
		err = fmt.Errorf("--erasure %s needs %d targets, and %d are named: name more, or choose a smaller layout", layout, n, targets)
	}
	return err
}

// equal tells whether two specs name the same remote. What is left of a move doesn't count.
func (s Spec) equal(o Spec) bool {
	return s.Erasure == o.Erasure && s.Encrypt == o.Encrypt && slices.Equal(s.URLs, o.URLs)
}

// Declared is a remote that the index knows of.
type Declared struct {
	Name     string
	Spec     Spec
	Sequence uint64    // of the newest head; 0: none yet
	Scrubbed time.Time // end of the last scrub that read everything; zero: none yet
	Problems int       // that it found and didn't mend

	was []Spec
}

// is tells whether a spec names the remote, as it is or as it was: who mounts a volume may not know that the copy was moved.
func (d Declared) is(s Spec) bool { return d.Spec.equal(s) || slices.ContainsFunc(d.was, s.equal) }

// List tells the remotes that the index knows of, by name.
func List(ix Index) (all []Declared, err error) {
	names, err := ix.Remotes()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		st, err := readState(ix, name)
		if err != nil {
			return nil, err
		}
		d := Declared{Name: name, Spec: st.Spec, Sequence: st.Head.Sequence, was: st.Was}
		if st.Scrub != nil {
			d.Scrubbed, d.Problems = st.Scrub.Done, st.Scrub.Problems
		}
		all = append(all, d)
	}
	return all, nil
}

// Declare makes the index know of exactly these remotes. What it knows of one that stays is kept; one that goes is forgotten, and nothing is removed
// from it.
func Declare(ix Index, specs []Spec) error {
	have, err := List(ix)
	if err != nil {
		return err
	}
	for _, d := range have {
		if !slices.ContainsFunc(specs, d.is) {
			if err := ix.DropRemote(d.Name); err != nil {
				return err
			}
		}
	}
	for _, s := range specs {
		if slices.ContainsFunc(have, func(d Declared) bool { return d.is(s) }) {
			continue
		}
		d := Declared{Name: freeName(have), Spec: s}
		if err := writeState(ix, d.Name, &state{Spec: s}); err != nil {
			return err
		}
		have = append(have, d)
	}
	return nil
}

// freeName gives the first of r1, r2, … that isn't taken.
func freeName(have []Declared) string {
	for n := 1; ; n++ {
		name := "r" + strconv.Itoa(n)
		if !slices.ContainsFunc(have, func(d Declared) bool { return d.Name == name }) {
			return name
		}
	}
}

// On tells the ids of the snapshots that a remote's newest head lists, as far as the index knows.
func On(ix Index, name string) (map[string]bool, error) {
	rows, err := ix.RemoteObjects(name, snapshot.ManifestPrefix)
	if err != nil {
		return nil, err
	}
	ids := make(map[string]bool, len(rows))
	for _, o := range rows {
		if id, ok := snapshot.ManifestID(o.Name); ok {
			ids[id] = true
		}
	}
	return ids, nil
}
