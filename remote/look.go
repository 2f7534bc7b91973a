package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"graphvol/chunkstore/target"
)

// Found is what Look has found on a target.
type Found struct {
	Volume    string // the volume that it is a copy of; empty: there is no whole copy
	Encrypted bool
	Part      bool   // it has a part of a copy that is spread over several targets
	Problem   string // why no copy can be made or used there; empty: the target is empty, or has a whole copy
}

// String is for people.
func (f Found) String() string {
	switch {
	case f.Problem != "":
		return f.Problem
	case f.Part:
		return "a part of a copy that is spread over several targets"
	case f.Volume == "":
		return "nothing"
	case f.Encrypted:
		return "an encrypted copy of volume " + f.Volume
	}
	return "a copy of volume " + f.Volume
}

// Look tells what is on a target. It needs no key.
func Look(ctx context.Context, t target.Target) (Found, error) {
	f, err := readStoreFile(ctx, t)
	switch {
	case errors.Is(err, errPart):
		return Found{Part: true}, nil
	case errors.Is(err, ErrForeign), errors.Is(err, ErrNewerFormat):
		return Found{Problem: err.Error()}, nil
	case err == nil:
		return Found{Volume: f.Volume, Encrypted: f.Encrypted}, nil
	case !errors.Is(err, fs.ErrNotExist):
		return Found{}, err
	}
	list, err := t.List(ctx, "")
	if err != nil || len(list) == 0 {
		return Found{}, err
	}
	return Found{Problem: fmt.Sprintf("%d objects that are no copy of a volume: name an empty directory or prefix", len(list))}, nil
}
