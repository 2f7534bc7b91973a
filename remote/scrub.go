package remote

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"graphvol/chunkstore"
	"graphvol/chunkstore/crypt"
	"graphvol/chunkstore/erasure"
	"graphvol/chunkstore/limit"
	"graphvol/chunkstore/target"
	"graphvol/index"
	"graphvol/snapshot"
)

// ScrubOptions are those of one scrub.
type ScrubOptions struct {
	// Mend: what can be mended is, at once. Else it is noted in the index, and the next round does it.
	Mend bool
	// Limit is how many bytes a second are read; 0: any number.
	Limit int64
	// Resume: the scrub goes on where the last one was that also did and didn't end, it makes room for others, and for rounds.
	Resume bool
	// Progress is called with the bytes of objects that were looked at, and of all. It may be nil, as the others.
	Progress func(done, total int64)
	// Found gets everything that is wrong.
	Found func(Finding)
	// Lost gets the snapshots, and their files, that need what neither the copy nor the store has.
	Lost func(snapshot.Problem)
}

// Trouble is what is wrong with an object of a remote.
type Trouble string

// What can be wrong with an object.
const (
	Weak    Trouble = "weak"    // it can be read, but not all of its shards or copies are whole and where they should be
	Damaged Trouble = "damaged" // it can't be read, or isn't what it should be
	Missing Trouble = "missing"
)

// Finding is an object that isn't as it should be.
type Finding struct {
	Object  string
	Trouble Trouble
	Err     error // says more
	Mended  bool  // it is as it should be now
	Lost    bool  // the store doesn't have it either
}

// Scrubbed is what a scrub has done.
type Scrubbed struct {
	Objects int64 // that were looked at
	Bytes   int64 // that were read, of all shards and copies
	Weak    int   // objects
	Damaged int
	Missing int
	Mended  int      // of these
	Lost    int      // of these
	Away    []string // targets that could not be asked for all that they should have
}

// Problems are findings that aren't mended.
func (s *Scrubbed) Problems() int { return s.Weak + s.Damaged + s.Missing - s.Mended }

// checker is what a target is that spreads objects.
type checker interface {
	repairer
	// Check reads every byte of what is stored of an object.
	Check(ctx context.Context, name string) (erasure.Report, error)
	// Incomplete lists objects of which something is there, but not enough.
	Incomplete(ctx context.Context, prefix string) ([]string, error)
}

// scrub is one run of Scrub.
type scrub struct {
	*Remote
	opts    ScrubOptions
	limiter *limit.Limiter
	state   state
	base    target.Target // both read no faster than the limit
	content target.Target // without what encrypts
	head    head
	known   map[string]int64 // sizes of the objects that the index knows there

	res         Scrubbed
	away        map[string]bool
	lost        map[chunkstore.PackID]error
	done, total int64
	record      scrubRecord
	saved       time.Time
	turns       bool // no other scrub runs until this one says so
	over        bool // it need not go on
}

// Scrub reads everything of the remote: all shards and copies on all targets, the content of packs and manifests, heads and keys. Rounds don't wait for it, but for moments
// in which something is looked at again or mended. An error means that not everything was read.
func (r *Remote) Scrub(ctx context.Context, o ScrubOptions) (Scrubbed, error) {
	s := &scrub{Remote: r, opts: o, limiter: limit.NewLimiter(o.Limit), away: make(map[string]bool), lost: make(map[chunkstore.PackID]error)}
	err := r.turn(ctx)
	if s.turns = err == nil; s.turns {
		err = s.run(ctx)
	}
	if s.turns {
		r.endTurn()
	}
	s.res.Bytes = s.limiter.Given()
	s.res.Away = slices.Sorted(maps.Keys(s.away))
	return s.res, r.failed(err)
}

// turn waits until no other scrub of the remote runs.
func (r *Remote) turn(ctx context.Context) error {
	select {
	case r.scrubbing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Remote) endTurn() { <-r.scrubbing }

func (s *scrub) run(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	names, err := s.names(ctx)
	if err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	if err = s.objects(ctx, names); s.over {
		return err
	}
	if err == nil && s.opts.Mend {
		err = s.removeIncomplete(ctx)
	}
	if err == nil {
		err = s.tellLost(ctx)
	}
	if err == nil {
		err = s.finishMove(ctx)
	}
	return errors.Join(err, s.end(err == nil))
}

// open opens the targets once more: what they read for this scrub is limited.
func (s *scrub) open(ctx context.Context) (err error) {
	s.state, s.base, s.content, err = s.openAs(ctx, s.cfg.Opener.patient(s.limiter))
	if err != nil {
		return err
	}
	return s.readHead(ctx)
}

// Open opens the remote to read from it.
func (r *Remote) Open(ctx context.Context) (target.Target, error) {
	_, _, content, err := r.openAs(ctx, r.cfg.Opener)
	return content, r.failed(err)
}

// openAs opens the targets, and what decrypts, as the index knows them: what store.json says isn't asked for.
func (r *Remote) openAs(ctx context.Context, o *Opener) (st state, base, content target.Target, err error) {
	if st, err = readState(r.cfg.Local.Index, r.cfg.Name); err != nil {
		return st, nil, nil, err
	}
	if st.Store == "" {
		return st, nil, nil, errors.New("nothing was copied there yet (graphvol sync VOLUME --wait)")
	}
	st.Spec = r.spec()
	if base, err = o.Base(ctx, st.Spec); err == nil {
		content, err = o.unlock(ctx, r.cfg.Name, st.Spec, base, r.storeFileOf(&st))
	}
	return st, base, content, err
}

// storeFileOf is what store.json should be.
func (r *Remote) storeFileOf(st *state) storeFile {
	return storeFile{FormatVersion: StoreVersion, Store: st.Store, Volume: r.cfg.Local.Volume, Encrypted: st.Spec.Encrypt}
}

// readHead reads the head that the index knows. That it can't be had is found again when it has its turn.
func (s *scrub) readHead(ctx context.Context) error {
	r := &Remote{target: s.content}
	_, h, err := r.readHead(ctx, s.state.Head.Sequence)
	if err != nil && passing(err) {
		return err
	}
	s.head = h
	return nil
}

// names lists what is to be looked at: what is there, and what should be.
func (s *scrub) names(ctx context.Context) ([]string, error) {
	rows, err := s.cfg.Local.Index.RemoteObjects(s.cfg.Name, "")
	if err != nil {
		return nil, err
	}
	list, err := s.base.List(ctx, "")
	if err != nil {
		return nil, err
	}
	s.known = map[string]int64{storeName: 0}
	if n := s.state.Head.Sequence; n > 0 {
		s.known[headName(n)] = 0
	}
	for _, in := range list {
		if ours(in.Name) {
			s.known[in.Name] = in.Size
		}
	}
	for _, o := range rows {
		s.known[o.Name] = o.Size
	}
	for _, size := range s.known {
		s.total += size
	}
	return slices.Sorted(maps.Keys(s.known)), nil
}

// ours tells whether an object is of those that a remote has.
func ours(name string) bool {
	_, isHead := headSequence(name)
	return isHead || rowed(name) || isCluster(name) || crypt.Plain(name)
}

// rowed tells whether the index has a row of an object if it is on the remote.
func rowed(name string) bool {
	return strings.HasPrefix(name, chunkstore.PackPrefix) || strings.HasPrefix(name, snapshot.ManifestPrefix)
}

// objects looks at one object after the other.
func (s *scrub) objects(ctx context.Context, names []string) error {
	for _, name := range names {
		size := s.known[name]
		if name > s.record.At {
			if over, err := s.makeRoom(ctx); over || err != nil {
				s.over = over
				return err
			}
			if err := s.object(ctx, name); err != nil {
				return err
			}
			s.res.Objects++
			s.record.At = name
			if err := s.save(saveEvery); err != nil {
				return err
			}
		}
		s.done += size
		if s.opts.Progress != nil {
			s.opts.Progress(s.done, s.total)
		}
	}
	return nil
}

// makeRoom lets rounds and other scrubs go first. over: one of these has read everything, or the remote isn't where it was.
func (s *scrub) makeRoom(ctx context.Context) (over bool, err error) {
	if !s.opts.Resume {
		return false, ctx.Err()
	}
	s.endTurn()
	s.awaitRound()
	if err := s.turn(ctx); err != nil {
		s.turns = false
		return false, err
	}
	st, err := readState(s.cfg.Local.Index, s.cfg.Name)
	if err == nil {
		err = ctx.Err()
	}
	moved := !st.Spec.equal(s.state.Spec) || !slices.Equal(st.Spec.Former, s.state.Spec.Former)
	return moved || st.Scrub != nil && st.Scrub.Done.After(s.record.Began), err
}

// awaitRound waits for the end of a round that runs.
func (r *Remote) awaitRound() {
	r.round.Lock()
	defer r.round.Unlock()
}

// object looks at one object.
func (s *scrub) object(ctx context.Context, name string) error {
	trouble, cause, err := s.check(ctx, name)
	if err != nil {
		return err
	}
	_, row, err := s.row(name)
	if err != nil {
		return err
	}
	if trouble == "" && (row || !rowed(name)) {
		return nil
	}
	return s.settle(ctx, name, trouble, cause)
}

// row is what the index says of an object.
func (s *scrub) row(name string) (o index.RemoteObject, ok bool, err error) {
	rows, err := s.cfg.Local.Index.RemoteObjects(s.cfg.Name, name)
	for _, o := range rows {
		if o.Name == name {
			return o, true, err
		}
	}
	return o, false, err
}
