package crypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"graphvol/chunkstore/target"
)

const (
	keySuffix = ".age"
	maxKeys   = 100 // on a target: whoever can write to it must not make others try for ever
)

// keyName returns the name of the object of a key.
func keyName(name string) (string, error) {
	if strings.Contains(name, "/") {
		return "", &fs.PathError{Op: "key", Path: name, Err: target.ErrBadName}
	}
	if err := target.CheckName(name); err != nil {
		return "", err
	}
	return keysPrefix + name + keySuffix, target.CheckName(name + keySuffix)
}

// ListKeys returns the names of the keys on a target, ascending. Anyone who can write to the target can have put them there.
func ListKeys(ctx context.Context, t target.Target) ([]string, error) {
	infos, err := t.List(ctx, keysPrefix)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	var names []string
	for _, in := range infos {
		name, ok := strings.CutSuffix(strings.TrimPrefix(in.Name, keysPrefix), keySuffix)
		if _, err := keyName(name); ok && err == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// AddKey wraps a keyring for recipients and stores it under a name that isn't taken yet, else target.ErrExists.
func AddKey(ctx context.Context, t target.Target, name string, r *Keyring, recipients ...Recipient) error {
	object, err := keyName(name)
	if err != nil {
		return fmt.Errorf("add key: %w", err)
	}
	names, err := ListKeys(ctx, t)
	if err != nil {
		return fmt.Errorf("add key %s: %w", name, err)
	}
	if len(names) >= maxKeys && !slices.Contains(names, name) {
		return fmt.Errorf("add key %s: there are %d already, and may not be more", name, len(names))
	}
	data, err := Wrap(r, recipients...)
	if err != nil {
		return fmt.Errorf("add key %s: %w", name, err)
	}
	if err := t.Put(ctx, object, bytes.NewReader(data), target.PutOptions{IfAbsent: true}); err != nil {
		return fmt.Errorf("add key %s: %w", name, err)
	}
	return nil
}

// RemoveKey removes a key, but for the last one (ErrLastKey). Who had it has possibly read the repository key, and can go on
// reading what it encrypts if he can get at the target: only a new repository key (Keyring.Rotated) keeps him from what is stored from then on.
// Two that remove two keys at the same time can remove the last one.
func RemoveKey(ctx context.Context, t target.Target, name string) error {
	object, err := keyName(name)
	if err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	names, err := ListKeys(ctx, t)
	switch {
	case err != nil:
		return fmt.Errorf("remove key %s: %w", name, err)
	case !slices.Contains(names, name):
		return fmt.Errorf("remove key %s: %w", name, fs.ErrNotExist)
	case len(names) == 1:
		return fmt.Errorf("remove key %s: %w", name, ErrLastKey)
	}
	if err := t.Remove(ctx, object); err != nil {
		return fmt.Errorf("remove key %s: %w", name, err)
	}
	return nil
}

// OpenKeyring tries identities on all keys of a target. Keyrings that don't fit pin are passed over. Of the others the one is
// taken that has the keys of all of them; if none has, one is forged (ErrForeignKeyring). A zero pin takes what a public key was used for on trust:
// whoever can write to the target can have made it. It does for a passphrase, since nobody can wrap for that without knowing it.
// ErrNoKey says that the identities open none.
func OpenKeyring(ctx context.Context, t target.Target, pin Pin, identities ...Identity) (*Keyring, error) {
	names, err := ListKeys(ctx, t)
	if err != nil {
		return nil, err
	}
	if len(names) > maxKeys {
		return nil, fmt.Errorf("%s has %d keys, more than the %d it may have", t, len(names), maxKeys)
	}
	var best *Keyring
	var opened []*Keyring
	var failed []error
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := openKey(ctx, t, name, pin, identities)
		switch {
		case err == nil:
			opened = append(opened, r)
			if best == nil || r.includes(best) {
				best = r
			}
		case !errors.Is(err, ErrNoKey):
			failed = append(failed, err)
		}
	}
	for _, r := range opened {
		if !best.includes(r) {
			return nil, fmt.Errorf("the keys on %s hold different repository keys: %w", t, ErrForeignKeyring)
		}
	}
	if best == nil && len(failed) > 0 {
		return nil, errors.Join(failed...)
	} else if best == nil {
		return nil, fmt.Errorf("%s has %d keys: %w", t, len(names), ErrNoKey)
	}
	return best, nil
}

func openKey(ctx context.Context, t target.Target, name string, pin Pin, identities []Identity) (*Keyring, error) {
	data, err := target.Get(ctx, t, keysPrefix+name+keySuffix, maxKeyring)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	r, err := Unwrap(data, identities...)
	if err == nil {
		err = pin.Check(r)
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	return r, nil
}
