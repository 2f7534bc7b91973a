package crypt

import (
	"errors"
	"fmt"
)

var (
	// ErrAltered says that an object isn't what was stored under its name with one of the keyring's keys. It is damaged, or somebody changed it.
	ErrAltered = errors.New("the object was changed, or belongs elsewhere")
	// ErrNewerFormat says that an object or key was written by a newer version of the software.
	ErrNewerFormat = errors.New("written in a newer format; use the version of graphvol that wrote it, or a later one")
	// ErrNoKey says that none of the identities opens a keyring.
	ErrNoKey = errors.New("none of the given keys opens the store")
	// ErrForeignKeyring says that a keyring isn't the one that was asked for: it was exchanged, or the key is that of another store.
	ErrForeignKeyring = errors.New("the repository key on the target is not the one of this store")
	// ErrLastKey says that without this key nobody could read the store.
	ErrLastKey = errors.New("it is the last key")
	// ErrKeyFile says that a file with a secret key can't be used as it is.
	ErrKeyFile = errors.New("bad key file")
)

// altered is the error of an object that must not be believed.
func altered(name, format string, args ...any) error {
	return fmt.Errorf("object %s: %w: %s", name, ErrAltered, fmt.Sprintf(format, args...))
}
