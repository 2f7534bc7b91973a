package damage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"graphvol/chunkstore"
	"graphvol/index"
	"graphvol/snapshot"
)

// limit bounds one look at a damaged state.
const limit = 30 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// finding is what is seen of a damaged state.
type finding struct {
	refused error            // it can't be opened
	told    map[string]error // the first problem that verify tells of each snapshot; "" of what is of none
	broken  map[string]error // the first error of reading a snapshot
}

// harmless: nothing can be noticed.
func (f *finding) harmless() bool { return f.refused == nil && len(f.told) == 0 && len(f.broken) == 0 }

// inspect opens a state as an offline command does, verifies it, and reads all snapshots. The error is a breach of what this package
// demands.
func inspect(ctx context.Context, state string, want map[string]model) (f *finding, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f = &finding{told: map[string]error{}, broken: map[string]error{}}
	repo, err := snapshot.Open(ctx, snapshot.Config{State: state, Log: quiet(), Workers: 1})
	if err != nil {
		f.refused = err
		return f, checkRefusal(err)
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	all, err := repo.Snapshots()
	if errors.Is(err, index.ErrCorrupt) {
		f.refused = err
		return f, nil
	}
	if err != nil {
		return f, err
	}
	complete := slices.DeleteFunc(all, func(s index.Snapshot) bool { return s.State != index.StateComplete })
	_, err = repo.Verify(ctx, complete, snapshot.VerifyOptions{ReadData: true, Report: func(p snapshot.Problem) {
		if f.told[p.Snapshot] == nil {
			f.told[p.Snapshot] = p.Err
		}
	}})
	if errors.Is(err, index.ErrCorrupt) {
		f.told[""], err = err, nil // the command ends with this line
	}
	if err != nil {
		return f, fmt.Errorf("verify: %w", err)
	}
	return f, f.read(ctx, repo, complete, want)
}

// checkRefusal demands that an error says what is wrong.
func checkRefusal(err error) error {
	for _, class := range []error{index.ErrCorrupt, index.ErrNewerFormat, snapshot.ErrIndexLost} {
		if errors.Is(err, class) {
			return nil
		}
	}
	return fmt.Errorf("refused without a clear reason: %w", err)
}

// read compares all snapshots with what they must hold.
func (f *finding) read(ctx context.Context, repo *snapshot.Repo, list []index.Snapshot, want map[string]model) error {
	missing := make(map[string]bool)
	for name := range want {
		missing[name] = true
	}
	for _, s := range list {
		m, known := want[s.Name]
		if !known {
			return fmt.Errorf("a snapshot %q has appeared", s.Name)
		}
		delete(missing, s.Name)
		unreadable, err := compare(ctx, repo, s, m)
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", s.Name, err)
		}
		if unreadable == nil {
			continue
		}
		f.broken[s.Name] = unreadable
		if f.told[s.Name] == nil && f.told[""] == nil {
			return fmt.Errorf("snapshot %s can't be read, and verify says nothing: %w", s.Name, unreadable)
		}
	}
	if len(missing) > 0 && len(f.told) == 0 {
		return fmt.Errorf("snapshots %v have vanished, and verify says nothing", missing)
	}
	return nil
}

// compare reads a snapshot. unreadable is the first error that a reader gets; err is a difference.
func compare(ctx context.Context, repo *snapshot.Repo, s index.Snapshot, want model) (unreadable, err error) {
	rd, err := repo.Reader(ctx, s)
	if err != nil {
		return err, allowed(err)
	}
	defer rd.Close()
	c := &comparison{ctx: ctx, rd: rd, want: want, seen: map[string]bool{}}
	if err := c.dir(rd.Root(), ""); err != nil {
		return nil, err
	}
	for path := range want {
		if !c.seen[path] && c.unreadable == nil {
			return nil, fmt.Errorf("%s isn't there", path)
		}
	}
	return c.unreadable, nil
}

// allowed are the errors that damage may have for a reader.
func allowed(err error) error {
	for _, class := range []error{chunkstore.ErrCorrupt, chunkstore.ErrNotFound, chunkstore.ErrNewerFormat, index.ErrCorrupt} {
		if errors.Is(err, class) {
			return nil
		}
	}
	return fmt.Errorf("an error of no known class: %w", err)
}

// comparison is one run of compare.
type comparison struct {
	ctx        context.Context
	rd         *snapshot.Reader
	want       model
	seen       map[string]bool
	unreadable error
}

// failed keeps an error of reading.
func (c *comparison) failed(err error) error {
	if c.unreadable == nil {
		c.unreadable = err
	}
	return allowed(err)
}

func (c *comparison) dir(ino uint64, prefix string) error {
	list, err := c.rd.ReadDir(c.ctx, ino)
	if err != nil {
		return c.failed(err)
	}
	for _, d := range list {
		path := prefix + d.Name
		if _, ok := c.want[path+"/"]; ok {
			c.seen[path+"/"] = true
			err = c.dir(d.Ino, path+"/")
		} else {
			c.seen[path] = true
			err = c.file(d.Ino, path)
		}
		if err != nil {
			return err
		}
	}
	for path := range c.want { // all names of this directory must have come
		rest, below := strings.CutPrefix(path, prefix)
		if below && rest != "" && !strings.Contains(strings.TrimSuffix(rest, "/"), "/") && !c.seen[path] {
			return fmt.Errorf("%s isn't there", path)
		}
	}
	return nil
}

func (c *comparison) file(ino uint64, path string) error {
	want, ok := c.want[path]
	if !ok {
		return fmt.Errorf("%s has appeared", path)
	}
	got := make([]byte, len(want)+1)
	n, err := c.rd.ReadAt(c.ctx, ino, got, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		got = got[:n]
		if !bytes.HasPrefix(want, got) {
			return fmt.Errorf("%s: wrong bytes before an error", path)
		}
		return c.failed(err)
	}
	if !bytes.Equal(got[:n], want) {
		return fmt.Errorf("%s: %d wrong bytes were served, want %d", path, n, len(want))
	}
	return nil
}
