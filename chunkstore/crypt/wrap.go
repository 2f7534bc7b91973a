package crypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// maxWorkFactor bounds what a passphrase's key file can make this machine do: 2^20 is 1 GiB of memory and some seconds. age writes 18.
const maxWorkFactor = 20

type (
	// Recipient is whom a keyring is wrapped for.
	Recipient = age.Recipient
	// Identity is what opens a wrapped keyring.
	Identity = age.Identity
	// X25519 is an identity that is a secret key.
	X25519 = age.X25519Identity
)

// NewIdentity makes a secret key.
func NewIdentity() (*X25519, error) { return age.GenerateX25519Identity() }

// ParseRecipient reads a public key: age1….
func ParseRecipient(s string) (Recipient, error) {
	r, err := age.ParseX25519Recipient(s)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return r, nil
}

// PassphraseRecipient wraps for those who know a passphrase. It is the only recipient of its keyring.
func PassphraseRecipient(passphrase string) (Recipient, error) {
	return age.NewScryptRecipient(passphrase)
}

// PassphraseIdentity opens what PassphraseRecipient has wrapped.
func PassphraseIdentity(passphrase string) (Identity, error) {
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, err
	}
	id.SetMaxWorkFactor(maxWorkFactor)
	return id, nil
}

// Wrap encrypts a keyring so that each of the recipients can open it: a passphrase, or any number of public keys.
func Wrap(r *Keyring, recipients ...Recipient) ([]byte, error) {
	plain, err := r.encode()
	if err != nil {
		return nil, fmt.Errorf("wrap keyring: %w", err)
	}
	defer clear(plain)
	var buf bytes.Buffer
	w, err := age.Encrypt(&buf, recipients...)
	if err != nil {
		return nil, fmt.Errorf("wrap keyring: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("wrap keyring: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("wrap keyring: %w", err)
	}
	if buf.Len() > maxKeyring {
		return nil, fmt.Errorf("wrap keyring: it takes %d bytes, more than the %d it may; give the recipients keys of their own", buf.Len(), maxKeyring)
	}
	return buf.Bytes(), nil
}

// Unwrap opens a wrapped keyring; ErrNoKey if none of the identities does. Anyone can have wrapped it, unless a passphrase opened it: see Pin.
func Unwrap(data []byte, identities ...Identity) (*Keyring, error) {
	if len(data) > maxKeyring {
		return nil, fmt.Errorf("unwrap keyring: it has %d bytes, more than the %d it may", len(data), maxKeyring)
	}
	if len(identities) == 0 {
		return nil, fmt.Errorf("unwrap keyring: %w", ErrNoKey)
	}
	src, err := age.Decrypt(bytes.NewReader(data), identities...)
	if no := (*age.NoIdentityMatchError)(nil); errors.As(err, &no) {
		return nil, fmt.Errorf("unwrap keyring: %w", ErrNoKey)
	} else if err != nil {
		return nil, fmt.Errorf("unwrap keyring: %w", err)
	}
	plain, err := io.ReadAll(src)
	if err != nil {
		return nil, fmt.Errorf("unwrap keyring: %w", err)
	}
	defer clear(plain)
	return decodeKeyring(plain)
}
