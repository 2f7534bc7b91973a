package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"graphvol/chunkstore/target"
	"graphvol/index"
)

// HeadVersion is the format_version of heads that this software writes, and the greatest that it reads.
const HeadVersion = 1

const (
	headPrefix = "heads/"
	maxHead    = 16 << 20 // 32,767 snapshots have some 4 MiB
	keptHeads  = 2
)

// head is the object heads/SEQUENCE: what a remote has.
type head struct {
	FormatVersion int            `json:"format_version"`
	Store         string         `json:"store"`
	Writer        string         `json:"writer"`
	Sequence      uint64         `json:"sequence"`
	Parent        string         `json:"parent_sha256"` // of the head before; empty for the first
	Created       time.Time      `json:"created"`
	Snapshots     []headSnapshot `json:"snapshots"` // oldest first
}

type headSnapshot struct {
	ID       string `json:"id"`
	Manifest string `json:"manifest_sha256"`
}

// headAt names a head.
type headAt struct {
	Sequence uint64 `json:"sequence"`
	SHA256   string `json:"sha256"`
}

func headName(seq uint64) string { return fmt.Sprintf("%s%020d", headPrefix, seq) }

func headSequence(name string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(name, headPrefix), 10, 64)
	return n, err == nil && headName(n) == name
}

func hashHex(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// headSequences lists the numbers of the heads on the remote, ascending.
func (r *Remote) headSequences(ctx context.Context) (seqs []uint64, err error) {
	list, err := r.target.List(ctx, headPrefix)
	if err != nil {
		return nil, fmt.Errorf("listing the heads: %w", err)
	}
	for _, in := range list {
		if n, ok := headSequence(in.Name); ok {
			seqs = append(seqs, n)
		}
	}
	return seqs, nil
}

// newestHead reads the newest head; its number is 0 if there is none.
func (r *Remote) newestHead(ctx context.Context) (headAt, head, error) {
	seqs, err := r.headSequences(ctx)
	if err != nil || len(seqs) == 0 {
		return headAt{}, head{}, err
	}
	return r.readHead(ctx, seqs[len(seqs)-1])
}

func (r *Remote) readHead(ctx context.Context, seq uint64) (at headAt, h head, err error) {
	p, err := target.Get(ctx, r.target, headName(seq), maxHead)
	if err != nil {
		return at, h, fmt.Errorf("reading head %d: %w", seq, err)
	}
	if err := json.Unmarshal(p, &h); err != nil {
		return at, h, fmt.Errorf("head %d can't be understood: %w", seq, err)
	}
	if h.FormatVersion > HeadVersion {
		return at, h, fmt.Errorf("head %d has format %d: %w", seq, h.FormatVersion, ErrNewerFormat)
	}
	if h.Sequence != seq {
		return at, h, fmt.Errorf("%w: head %d says that it is number %d", ErrChanged, seq, h.Sequence)
	}
	return headAt{seq, hashHex(p)}, h, nil
}

// checkHead compares the newest head with the one that the index remembers.
func (r *Remote) checkHead(ctx context.Context, st *state) error {
	at, h, err := r.newestHead(ctx)
	if err != nil {
		return err
	}
	switch {
	case at == st.Head && (at.Sequence == 0 || h.Writer == r.writer):
		st.Ours = at.Sequence > 0
		return nil
	case at == st.Head: // attached, and not taken over yet
	case at.Sequence < st.Head.Sequence:
		return fmt.Errorf("%w: its newest head is number %d, and there was a number %d: it was rolled back, or lost what was written last; "+
			"to copy to it again what it lacks, run graphvol sync VOLUME --take-over", ErrChanged, at.Sequence, st.Head.Sequence)
	case at.Sequence == st.Head.Sequence:
		return fmt.Errorf("%w: head %d is another one than was written", ErrChanged, at.Sequence)
	case h.Writer == r.writer && h.Parent == st.Head.SHA256 && at.Sequence == st.Head.Sequence+1:
		// Written by a process that died before it could say so.
		st.Head, st.Ours = at, true
		return nil
	}
	return fmt.Errorf("%w: writer %s has written head %d on %s; stop that one, or take the copy over (graphvol sync VOLUME --take-over)",
		ErrTaken, h.Writer, at.Sequence, timeOf(h))
}

// putHead puts a head that lists exactly the snapshots, unless the newest one does.
func (r *Remote) putHead(ctx context.Context, snaps []index.Snapshot) error {
	st := r.state
	if st.Head.Sequence > 0 {
		at, h, err := r.readHead(ctx, st.Head.Sequence)
		if errors.Is(err, fs.ErrNotExist) {
			r.known = false // how much is gone shows when the remote is looked at anew
			err = fmt.Errorf("%w: head %d, which was put there, is gone", ErrChanged, st.Head.Sequence)
		}
		if err != nil {
			return err
		}
		if at == st.Head && h.Writer == r.writer && h.lists(snaps) {
			return nil
		}
	}
	st, err := r.putHeadAfter(ctx, r.target, st, snaps)
	if errors.Is(err, target.ErrExists) {
		r.known = false // whose it is shows when the remote is looked at anew
		err = fmt.Errorf("%w: head %d has appeared meanwhile", ErrTaken, r.state.Head.Sequence+1)
	}
	if err != nil {
		return err
	}
	r.state = st
	return r.dropHeads(ctx)
}

// putHeadAfter puts the head after the one that the state tells of, and gives the new state, which the index has.
func (r *Remote) putHeadAfter(ctx context.Context, t target.Target, st state, snaps []index.Snapshot) (state, error) {
	h := head{
		FormatVersion: HeadVersion, Store: st.Store, Writer: r.writer, Sequence: st.Head.Sequence + 1, Parent: st.Head.SHA256, Created: time.Now().UTC(),
		Snapshots: []headSnapshot{},
	}
	for _, s := range snaps {
		h.Snapshots = append(h.Snapshots, headSnapshot{s.ID, s.ManifestSHA256})
	}
	p, err := json.Marshal(&h)
	if err != nil {
		return st, err
	}
	if err := putNew(ctx, t, headName(h.Sequence), p); err != nil {
		return st, fmt.Errorf("putting head %d: %w", h.Sequence, err)
	}
	st.Head, st.Ours = headAt{h.Sequence, hashHex(p)}, true
	return st, r.record(&st)
}

func (h *head) lists(snaps []index.Snapshot) bool {
	if len(snaps) != len(h.Snapshots) {
		return false
	}
	for i, s := range snaps {
		if h.Snapshots[i] != (headSnapshot{s.ID, s.ManifestSHA256}) {
			return false
		}
	}
	return true
}

// dropHeads removes all heads but the newest.
func (r *Remote) dropHeads(ctx context.Context) error {
	seqs, err := r.headSequences(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, n := range seqs {
		if n+keptHeads <= r.state.Head.Sequence {
			names = append(names, headName(n))
		}
	}
	return r.target.Remove(ctx, names...)
}

// putNew puts a small object that must not be there.
func putNew(ctx context.Context, t target.Target, name string, p []byte) error {
	_, err := stored(t.Put(ctx, name, bytes.NewReader(p), target.PutOptions{IfAbsent: true}))
	return err
}

func timeOf(h head) string { return h.Created.Format("2006-01-02 15:04:05 MST") }
