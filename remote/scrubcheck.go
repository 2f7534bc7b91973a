package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"graphvol/chunkstore"
	"graphvol/chunkstore/crypt"
	"graphvol/chunkstore/erasure"
	"graphvol/chunkstore/target"
	"graphvol/snapshot"
)

// check reads all of an object. An error says that this could not be done.
func (s *scrub) check(ctx context.Context, name string) (Trouble, error, error) {
	var weak error
	if spread, ok := s.base.(checker); ok {
		rep, err := spread.Check(ctx, name)
		if err != nil {
			return troubleOf(err)
		}
		weak = s.weakness(rep)
	}
	if err := s.read(ctx, name); err != nil {
		return troubleOf(err)
	}
	if weak != nil {
		return Weak, weak, nil
	}
	return "", nil, nil
}

func troubleOf(err error) (Trouble, error, error) {
	switch {
	case passing(err):
		return "", nil, err
	case errors.Is(err, fs.ErrNotExist):
		return Missing, err, nil
	}
	return Damaged, err, nil
}

// passing tells whether an error says nothing about what is stored.
func passing(err error) bool {
	for _, class := range []error{ErrNewerFormat, chunkstore.ErrNewerFormat, crypt.ErrNewerFormat, erasure.ErrNewerFormat} {
		if errors.Is(err, class) {
			return true
		}
	}
	return chunkstore.Passing(err)
}

// weakness says what a spread object lacks; nil: nothing, as far as its targets answer.
func (s *scrub) weakness(rep erasure.Report) error {
	if rep.Full {
		return nil
	}
	var missing []string
	asked := true
	for _, p := range rep.Parts {
		switch {
		case p.Err == nil:
		case passing(p.Err):
			s.away[p.Member] = true
			asked = false
		default:
			missing = append(missing, erasure.Missing{Shard: p.Shard, Member: p.Member, Err: p.Err}.String())
		}
	}
	switch layout := rep.Layout.String(); {
	case rep.Layout != (erasure.Layout{}) && layout != s.state.Spec.Erasure:
		return fmt.Errorf("it is stored as %s, not as %s", layout, s.state.Spec.Erasure)
	case len(missing) > 0:
		return errors.New(strings.Join(missing, "; "))
	case rep.Stray > 0 || asked:
		return errors.New("parts of it are where none should be")
	}
	return nil
}

// read reads what an object holds.
func (s *scrub) read(ctx context.Context, name string) error {
	if id, ok := chunkstore.ParsePackObject(name); ok {
		obj, err := s.content.Open(ctx, name)
		if err != nil {
			return err
		}
		defer obj.Close()
		return s.cfg.Local.VerifyObject(ctx, id, obj)
	}
	if n, ok := headSequence(name); ok {
		r := &Remote{target: s.content}
		at, h, err := r.readHead(ctx, n)
		if err == nil && n == s.state.Head.Sequence && at != s.state.Head {
			err = s.changedHead(h.Writer)
		}
		if err == nil && n+1 == s.head.Sequence && at.SHA256 != s.head.Parent {
			err = fmt.Errorf("it isn't the one that head %d follows", s.head.Sequence)
		}
		return err
	}
	if id, ok := snapshot.ManifestID(name); ok && rowed(name) {
		p, err := target.Get(ctx, s.content, name, snapshot.MaxManifest)
		if err == nil && hashHex(p) != s.manifestHash(id) {
			err = fmt.Errorf("%w: it isn't the manifest that head %d lists", ErrChanged, s.state.Head.Sequence)
		}
		return err
	}
	if isCluster(name) {
		return s.readCluster(ctx, name)
	}
	if name == storeName {
		f, err := readStoreFile(ctx, s.base)
		if err == nil && f != s.storeFileOf(&s.state) {
			err = fmt.Errorf("%w: it says that this is copy %s of volume %s", ErrForeign, f.Store, f.Volume)
		}
		return err
	}
	return s.readKey(ctx, name)
}

// readKey reads a wrapped keyring. The one that this state directory's key opens was opened; of the others only their holders can tell.
func (s *scrub) readKey(ctx context.Context, name string) error {
	p, err := target.Get(ctx, s.base, name, maxStoreFile)
	if err == nil && !strings.HasPrefix(string(p), "age-encryption.org/v1\n") {
		err = errors.New("it is no file of age")
	}
	return err
}

// changedHead says that a head isn't the one that was written, unless a round has replaced it meanwhile.
func (s *scrub) changedHead(writer string) error {
	st, err := readState(s.cfg.Local.Index, s.cfg.Name)
	if err != nil || st.Head != s.state.Head {
		return err
	}
	if us, err := writerID(s.cfg.Local.Index); err != nil || writer == us {
		return errors.Join(errors.New("it isn't the one that was written"), err)
	}
	return fmt.Errorf("%w: it is another one than was written", ErrChanged)
}

// manifestHash is the SHA-256 that a snapshot's manifest must have; of one that neither the head nor the catalogue has, nobody knows it.
func (s *scrub) manifestHash(id string) string {
	for _, h := range s.head.Snapshots {
		if h.ID == id {
			return h.Manifest
		}
	}
	snap, _, _ := s.catalogued(snapshot.ManifestObject(id)) // what can't be read of the index, rounds tell
	return snap.ManifestSHA256
}
