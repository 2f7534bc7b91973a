package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"

	"graphvol/agent/api"
	"graphvol/chunkstore/crypt"
	"graphvol/remote"
)

// Keys are the keys of an encrypted copy.
type Keys struct {
	Copy   string // the copy's name
	State  string
	spec   remote.Spec
	opener *remote.Opener
}

// OpenKeys finds the encrypted copy of a name, or the only one if the name is empty, of the volume that a user names. Nothing is asked of its targets yet.
func OpenKeys(ctx context.Context, volume, name string, stderr io.Writer) (*Keys, error) {
	c, err := Open(ctx, volume, stderr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if c.Place.IsStore() {
		return nil, refuse(codes.FailedPrecondition, fmt.Sprintf("%s is a mounted copy of a store, which doesn't keep its key: name the volume itself, or attach the copy (graphvol attach)", c.Place.Mount.Point))
	}
	st, err := c.Status(ctx, &api.StatusRequest{WithoutSizes: true})
	if err != nil {
		return nil, err
	}
	var names []string
	var found *Keys
	for _, r := range st.GetRemotes() {
		if !r.GetEncrypted() || name != "" && r.GetName() != name {
			continue
		}
		names = append(names, r.GetName())
		found = &Keys{
			Copy: r.GetName(), State: st.GetState(), opener: openerOf(st.GetState(), nil),
			spec: remote.Spec{URLs: r.GetUrls(), Erasure: r.GetErasure(), Former: r.GetFormer(), Encrypt: true},
		}
	}
	switch {
	case found == nil && name != "":
		return nil, refuse(codes.NotFound, fmt.Sprintf("the volume has no encrypted copy named %s; graphvol status lists its copies", name))
	case found == nil:
		return nil, refuse(codes.FailedPrecondition, "the volume has no encrypted copy")
	case len(names) > 1:
		return nil, refuse(codes.InvalidArgument, fmt.Sprintf("the volume has several encrypted copies (%s): choose one with --copy", strings.Join(names, ", ")))
	}
	return found, nil
}

// Path is where the key file is.
func (k *Keys) Path() string { return k.opener.KeyFile(k.Copy) }

// Recovery is the key file as a text for paper.
func (k *Keys) Recovery() (string, error) {
	f, err := crypt.ReadKeyFile(k.Path())
	if errors.Is(err, os.ErrNotExist) {
		return "", refuse(codes.FailedPrecondition, fmt.Sprintf("the copy %s has no key yet: it is made when the copy is reached for the first time (graphvol sync --wait)", k.Copy))
	}
	if err != nil {
		return "", err
	}
	if f.Identity == nil {
		return "", refuse(codes.FailedPrecondition, fmt.Sprintf("the copy %s is opened with a passphrase here, which is all that is needed to read it: graphvol attach --passphrase-file takes it", k.Copy))
	}
	return f.Recovery(), nil
}

// List names the keys that open the copy.
func (k *Keys) List(ctx context.Context) ([]string, error) {
	base, err := k.opener.Base(ctx, k.spec)
	if err != nil {
		return nil, err
	}
	return crypt.ListKeys(ctx, base)
}

// AddPassphrase lets a passphrase open the copy.
func (k *Keys) AddPassphrase(ctx context.Context, name, passphrase string) error {
	r, err := crypt.PassphraseRecipient(passphrase)
	if err != nil {
		return err
	}
	return k.add(ctx, name, r)
}

// AddPublic lets those who have the secret keys of age's public keys (age1…) open the copy.
func (k *Keys) AddPublic(ctx context.Context, name string, public []string) error {
	var all []crypt.Recipient
	for _, p := range public {
		r, err := crypt.ParseRecipient(p)
		if err != nil {
			return refuse(codes.InvalidArgument, fmt.Sprintf("%q is no public key of age (age1…): %v", p, err))
		}
		all = append(all, r)
	}
	return k.add(ctx, name, all...)
}

func (k *Keys) add(ctx context.Context, name string, to ...crypt.Recipient) error {
	base, err := k.opener.Base(ctx, k.spec)
	if err != nil {
		return err
	}
	f, err := crypt.ReadKeyFile(k.Path())
	if err != nil {
		return err
	}
	ring, err := f.OpenKeyring(ctx, base)
	if err != nil {
		return err
	}
	return crypt.AddKey(ctx, base, name, ring, to...)
}

// Remove removes a key. Who had it could have read the repository key.
func (k *Keys) Remove(ctx context.Context, name string) error {
	base, err := k.opener.Base(ctx, k.spec)
	if err != nil {
		return err
	}
	return crypt.RemoveKey(ctx, base, name)
}

// readKey reads a key file, or a recovery text as somebody has typed it.
func readKey(path string) (*crypt.KeyFile, error) {
	k, err := crypt.ReadKeyFile(path)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return k, err
	}
	p, rerr := os.ReadFile(path)
	if rerr != nil || !strings.Contains(strings.ToUpper(string(p)), "VERSION") {
		return nil, err
	}
	return crypt.ParseRecovery(string(p))
}

// PutKey makes the key file of a copy in a state directory from another one, or from a recovery text.
func PutKey(from, state, name string) error {
	k, err := readKey(from)
	if err != nil {
		return err
	}
	path := openerOf(state, nil).KeyFile(name)
	if _, err := os.Lstat(path); err == nil {
		return refuse(codes.AlreadyExists, fmt.Sprintf("%s is there already: move it away first, if it is the wrong one", path))
	}
	if err := k.Write(path); err != nil {
		return fmt.Errorf("write the key file %s: %w", filepath.Base(path), err)
	}
	return nil
}
