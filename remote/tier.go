package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"graphvol/chunkstore/blockcache"
	"graphvol/chunkstore/target"
	"graphvol/internal/durable"
)

// restName is a file in a state directory that says that its store has only what was written there since it was attached; the rest is on a remote.
const restName = "attached.json"

// RestVersion is the format_version of attached.json that this software writes, and the greatest that it reads.
const RestVersion = 1

type restFile struct {
	FormatVersion int    `json:"format_version"`
	Name          string `json:"name"` // of the remote
	Spec          Spec   `json:"spec"`
}

// WriteRest says, durably, that a state's store lacks what is on a remote.
func WriteRest(state, name string, spec Spec) error {
	p, err := json.MarshalIndent(restFile{RestVersion, name, spec}, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(state, restName), append(p, '\n'))
}

// Store is a state's own store, and behind it, if the state was attached to a remote, that: objects that aren't here are read there.
type Store struct {
	target.Local
	state  string
	opener *Opener
	cache  blockcache.Options

	mu   sync.Mutex
	at   restFile
	rest target.Target // nil: not opened yet
}

// OpenStore opens the store of a state directory. The remote is opened when something is read that isn't here. cacheDir is where blocks of packs are kept
// that were read there; empty: in memory only.
func OpenStore(state, cacheDir string, o *Opener) (target.Local, error) {
	local, err := target.OpenDir(filepath.Join(state, "store"))
	if err != nil {
		return nil, err
	}
	p, err := os.ReadFile(filepath.Join(state, restName))
	if errors.Is(err, fs.ErrNotExist) {
		return local, nil
	}
	var f restFile
	if err == nil {
		err = json.Unmarshal(p, &f)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s can't be read, which says where the rest of the store is: %w; attach the copy again, to a new state directory", filepath.Join(state, restName), err)
	case f.FormatVersion > RestVersion:
		return nil, fmt.Errorf("%s has format %d: %w", filepath.Join(state, restName), f.FormatVersion, ErrNewerFormat)
	}
	return &Store{Local: local, state: state, at: f, opener: o, cache: blockcache.Options{Dir: cacheDir}}, nil
}

// Open opens an object, here or on the remote.
func (s *Store) Open(ctx context.Context, name string) (target.Object, error) {
	o, err := s.Local.Open(ctx, name)
	if !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	rest, rerr := s.remote(ctx)
	if rerr != nil {
		return nil, fmt.Errorf("%s isn't in the state's own store, and the copy it is on can't be opened: %w", name, rerr)
	}
	return rest.Open(ctx, name)
}

func (s *Store) remote(ctx context.Context) (target.Target, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rest == nil {
		u, err := s.opener.open(ctx, s.at.Name, s.at.Spec)
		if err != nil {
			return nil, err
		}
		rest, err := u.cached(u.Target, s.cache)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.at.Spec, err)
		}
		s.rest = rest
	}
	return s.rest, nil
}

// moved notes, durably, where a remote is to be found from now on, if it is the one that has the rest.
func (s *Store) moved(name string, spec Spec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.Name != name {
		return nil
	}
	if err := WriteRest(s.state, name, spec); err != nil {
		return err
	}
	s.at.Spec, s.rest = spec, nil
	return nil
}
