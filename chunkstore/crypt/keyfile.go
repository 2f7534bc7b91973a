package crypt

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"filippo.io/age"

	"graphvol/chunkstore/target"
	"graphvol/internal/durable"
)

// KeyFileVersion is that of key files which this software writes, and the greatest that it reads.
const KeyFileVersion = 1

const (
	keyFileTitle  = "# graphvol key file "
	maxKeyFile    = 64 << 10
	maxPassphrase = 4 << 10

	passphraseTitle = "# passphrase"
	passphraseHead  = "PASSPHRASE "
)

// KeyFile is a secret key, or a passphrase, and what it must open.
type KeyFile struct {
	Identity   *X25519
	Passphrase string // in place of Identity, which is nil then; one line
	Pin        Pin
}

// NewKeyFile makes a new identity for a keyring.
func NewKeyFile(r *Keyring) (*KeyFile, error) {
	id, err := NewIdentity()
	if err != nil {
		return nil, err
	}
	return &KeyFile{Identity: id, Pin: r.Pin()}, nil
}

// NewPassphraseFile gives the key file of a passphrase. It knows nothing of the keyring yet: OpenKeyring tells.
func NewPassphraseFile(passphrase string) (*KeyFile, error) {
	if strings.ContainsAny(passphrase, "\r\n\x00") || len(passphrase) > maxPassphrase {
		return nil, fmt.Errorf("a passphrase is one line of at most %d bytes", maxPassphrase)
	}
	if _, err := PassphraseIdentity(passphrase); err != nil {
		return nil, err
	}
	return &KeyFile{Passphrase: passphrase}, nil
}

// OpenKeyring opens the keyring on a target. A key file that didn't know it does then.
func (k *KeyFile) OpenKeyring(ctx context.Context, t target.Target) (*Keyring, error) {
	var id Identity = k.Identity
	if k.Identity == nil {
		var err error
		if id, err = PassphraseIdentity(k.Passphrase); err != nil {
			return nil, err
		}
	}
	r, err := OpenKeyring(ctx, t, k.Pin, id)
	if err == nil && k.Pin == (Pin{}) {
		k.Pin = r.Pin()
	}
	return r, err
}

// String says what it is, without the secret.
func (k *KeyFile) String() string { return "key of store " + k.Pin.Store }

// GoString is String: nothing prints keys.
func (k *KeyFile) GoString() string { return k.String() }

func (k *KeyFile) encode() []byte {
	title, secret := passphraseTitle, passphraseHead+k.Passphrase
	if k.Identity != nil {
		title, secret = "# public key "+k.Identity.Recipient().String(), k.Identity.String()
	}
	return fmt.Appendf(nil, "%s%d\n# store %s\n# commitment %d %x\n%s\n%s\n", keyFileTitle, KeyFileVersion,
		k.Pin.Store, k.Pin.Number, k.Pin.Commitment, title, secret)
}

// decodeKeyFile takes what encode writes, and nothing else.
func decodeKeyFile(data []byte) (*KeyFile, error) {
	lines := strings.Split(string(data), "\n")
	title, ok := strings.CutPrefix(lines[0], keyFileTitle)
	if !ok {
		return nil, errors.New("line 1: it isn't a key file of graphvol")
	}
	if v, err := strconv.Atoi(title); err != nil || v < KeyFileVersion {
		return nil, errors.New("line 1: bad version")
	} else if v > KeyFileVersion {
		return nil, fmt.Errorf("version %d: %w", v, ErrNewerFormat)
	}
	if len(lines) != 6 {
		return nil, fmt.Errorf("it has %d lines, not 5", len(lines)-1)
	}
	k := &KeyFile{}
	k.Pin.Store = strings.TrimPrefix(lines[1], "# store ")
	if !validStoreID(k.Pin.Store) {
		return nil, errors.New("line 2: bad store id")
	}
	number, sum, _ := strings.Cut(strings.TrimPrefix(lines[2], "# commitment "), " ")
	if err := k.Pin.parseCommitment(number, sum); err != nil {
		return nil, fmt.Errorf("line 3: %w", err)
	}
	if err := k.decodeSecret(lines[3], lines[4]); err != nil {
		return nil, fmt.Errorf("line 5: %w", err)
	}
	if !bytes.Equal(k.encode(), data) {
		return nil, errors.New("it isn't as it was written")
	}
	return k, nil
}

func (k *KeyFile) decodeSecret(title, secret string) (err error) {
	if title != passphraseTitle {
		k.Identity, err = parseIdentity(secret)
		return err
	}
	p, err := NewPassphraseFile(strings.TrimPrefix(secret, passphraseHead))
	if err != nil {
		return errors.New("not a passphrase") // the error must not repeat it
	}
	k.Passphrase = p.Passphrase
	return nil
}

func (p *Pin) parseCommitment(number, sum string) error {
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n == 0 {
		return errors.New("bad number of the repository key")
	}
	c, err := hex.DecodeString(sum)
	if err != nil || len(c) != len(p.Commitment) {
		return errors.New("bad commitment")
	}
	p.Number, p.Commitment = uint32(n), [16]byte(c)
	return nil
}

// parseIdentity has an error that doesn't repeat what it was given.
func parseIdentity(s string) (*X25519, error) {
	id, err := age.ParseX25519Identity(s)
	if err != nil {
		return nil, errors.New("not a secret key (AGE-SECRET-KEY-1…)")
	}
	return id, nil
}

// ReadKeyFile reads a key file. Errors wrap ErrKeyFile if it isn't as it must be, ErrNewerFormat if it is of a newer version.
func ReadKeyFile(path string) (*KeyFile, error) {
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	k, err := decodeKeyFile(data)
	if errors.Is(err, ErrNewerFormat) {
		return nil, fmt.Errorf("%s: %w", path, err)
	} else if err != nil {
		return nil, fmt.Errorf("%w %s: %w", ErrKeyFile, path, err)
	}
	return k, nil
}

// ReadIdentities reads secret keys as age's own program keeps them: one a line, beside empty lines and such that begin with #.
func ReadIdentities(path string) ([]Identity, error) {
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	var ids []Identity
	n := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		id, err := parseIdentity(line)
		if err != nil {
			return nil, fmt.Errorf("%w %s: line %d: %w", ErrKeyFile, path, n, err)
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w %s: it has no secret key (AGE-SECRET-KEY-1…)", ErrKeyFile, path)
	}
	return ids, nil
}

// readSecret reads a file that nobody but its owner may read.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if perm := st.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("%w %s: its mode is %#o, so others may read or write it; it must be 0600 (chmod 600 %s)", ErrKeyFile, path, perm, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("%w %s: it has more than %d bytes", ErrKeyFile, path, maxKeyFile)
	}
	return data, nil
}

// Write stores the key file durably with mode 0600, in place of a former one, and makes its directory (mode 0700) if it is missing.
func (k *KeyFile) Write(path string) error {
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o700); err == nil {
		err = durable.SyncDir(filepath.Dir(dir))
		if err != nil {
			return fmt.Errorf("write key: %w", err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write key: %w", err)
	}
	if err := durable.WriteFile(path, k.encode()); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}
