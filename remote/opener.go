package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"graphvol/chunkstore"
	"graphvol/chunkstore/blockcache"
	"graphvol/chunkstore/crypt"
	"graphvol/chunkstore/erasure"
	"graphvol/chunkstore/limit"
	"graphvol/chunkstore/target"
)

// ErrLocked says that a remote is encrypted, and that its key isn't there.
var ErrLocked = errors.New("the copy is encrypted, and its key is missing")

// firstKey is the name of the key that is made with a remote.
const firstKey = "first"

// Opener opens what a remote consists of.
type Opener struct {
	Dial func(ctx context.Context, url string) (target.Target, error)
	Keys string         // the directory of key files; a remote's is NAME.key
	Key  *crypt.KeyFile // of every remote, in place of those files; nil: they are read
	Log  *slog.Logger   // of what becomes of single targets; nil: nothing is logged

	hedge time.Duration // see erasure.Options
}

// patientHedge is how long one who reads no faster than a limit waits for a target before asking others: it is the limit that makes it slow.
const patientHedge = time.Minute

// patient returns an opener of targets that are read no faster than a limit.
func (o *Opener) patient(l *limit.Limiter) *Opener {
	p := *o
	p.hedge = patientHedge
	p.Dial = func(ctx context.Context, url string) (target.Target, error) {
		t, err := o.Dial(ctx, url)
		if err != nil {
			return nil, err
		}
		return limit.New(t, l, nil), nil
	}
	return &p
}

// KeyFile is where a remote's key file is.
func (o *Opener) KeyFile(name string) string { return filepath.Join(o.Keys, name+".key") }

// Open opens a remote that is there, to read it. Errors: ErrForeign, ErrLocked, and those of the targets.
func (o *Opener) Open(ctx context.Context, name string, s Spec) (target.Target, error) {
	u, err := o.open(ctx, name, s)
	return u.Target, err
}

// open is Open, and says what it has found.
func (o *Opener) open(ctx context.Context, name string, s Spec) (u unlocked, err error) {
	base, err := o.Base(ctx, s)
	if err != nil {
		return u, err
	}
	f, err := readStoreFile(ctx, base)
	if errors.Is(err, fs.ErrNotExist) {
		return u, fmt.Errorf("%w: it has no %s", ErrForeign, storeName)
	}
	if err != nil {
		return u, err
	}
	return o.unlock(ctx, name, s, base, f)
}

// unlocked is a remote without its encryption.
type unlocked struct {
	target.Target
	file storeFile
	ring *crypt.Keyring // nil: it isn't encrypted
}

// localBlocks is the purpose for which a keyring encrypts blocks on a reader's disk.
const localBlocks = "blocks"

// cached keeps blocks of packs that are read. On disk they are no more readable than on the remote.
func (u unlocked) cached(t target.Target, o blockcache.Options) (target.Target, error) {
	o.Prefix = chunkstore.PackPrefix
	if u.ring != nil {
		seal, err := u.ring.Local(localBlocks)
		if err != nil {
			return nil, err
		}
		o.Seal = seal
	}
	return blockcache.New(t, o)
}

// Base opens the targets, without what encrypts.
func (o *Opener) Base(ctx context.Context, s Spec) (target.Target, error) {
	if s.Erasure == "" {
		return o.Dial(ctx, s.URLs[0])
	}
	layout, err := erasure.ParseLayout(s.Erasure)
	if err != nil {
		return nil, err
	}
	members := make([]erasure.Member, 0, len(s.URLs)+len(s.Former))
	for i, url := range slices.Concat(s.URLs, s.Former) {
		members = append(members, erasure.Member{ID: hashHex([]byte(url))[:16], Target: &lazy{dial: o.Dial, url: url}, Leaving: i >= len(s.URLs)})
	}
	return erasure.New(layout, members, erasure.Options{Log: o.Log, HedgeAfter: o.hedge})
}

// unlock gives the target as it is without encryption.
func (o *Opener) unlock(ctx context.Context, name string, s Spec, base target.Target, f storeFile) (unlocked, error) {
	switch {
	case !s.Encrypt && f.Encrypted:
		return unlocked{}, fmt.Errorf("%w: it was begun with encryption; say so (--encrypt yes, or name its key with --key)", ErrLocked)
	case !s.Encrypt:
		return unlocked{base, f, nil}, nil
	}
	// What store.json says is not relied upon: whoever can write to the target can have changed it.
	k, err := o.key(name)
	if err != nil {
		return unlocked{}, err
	}
	ring, err := k.OpenKeyring(ctx, base)
	if errors.Is(err, crypt.ErrNoKey) && !f.Encrypted {
		err = fmt.Errorf("%w; it says that it isn't encrypted: if that is right, name no key", err)
	}
	if err != nil {
		return unlocked{}, err
	}
	return unlocked{crypt.New(base, ring), f, ring}, nil
}

func (o *Opener) key(name string) (*crypt.KeyFile, error) {
	if o.Key != nil {
		return o.Key, nil
	}
	k, err := crypt.ReadKeyFile(o.KeyFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: put its key file back to %s (graphvol key restore makes it from the recovery text too)", ErrLocked, o.KeyFile(name))
	}
	return k, err
}

// makeKey makes the key of a remote that has nothing yet, if it has none. The key file is durable before anything could be encrypted with its key.
func (o *Opener) makeKey(ctx context.Context, name string, base target.Target, f storeFile) error {
	there, err := crypt.ListKeys(ctx, base)
	if err != nil || len(there) > 0 {
		return err
	}
	heads, err := base.List(ctx, headPrefix)
	if err != nil {
		return err
	}
	if len(heads) > 0 {
		return fmt.Errorf("%w: somebody has removed all keys from it; put %sNAME.age back from another copy of them", ErrChanged, "keys/")
	}
	ring, err := crypt.NewKeyring(f.Store)
	if err != nil {
		return err
	}
	k, err := crypt.NewKeyFile(ring)
	if err != nil {
		return err
	}
	// A key file that is there was made by a process that died before the next step: nothing was encrypted for it.
	if err := k.Write(o.KeyFile(name)); err != nil {
		return err
	}
	_, err = stored(crypt.AddKey(ctx, base, firstKey, ring, k.Identity.Recipient()))
	return err
}
