package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/codes"

	"graphvol/chunkstore/crypt"
)

// KeySource says what opens an encrypted copy on a machine that has no key of it yet. None of both: the copy isn't encrypted.
type KeySource struct {
	File           string // path of a key file or recovery text
	PassphraseFile string // path of a file with a passphrase in its first line
}

// Check refuses what can't be meant; its errors are of usage.
func (s KeySource) Check() error {
	if s.File != "" && s.PassphraseFile != "" {
		return refuse(codes.InvalidArgument, "name either a key file or recovery text (--key) or a file with a passphrase (--passphrase-file)")
	}
	return nil
}

// read gives the key; nil if there is none.
func (s KeySource) read() (k *crypt.KeyFile, err error) {
	switch {
	case s.File != "":
		if k, err = readKey(s.File); errors.Is(err, os.ErrNotExist) {
			err = refuse(codes.NotFound, fmt.Sprintf("there is no key file or recovery text %s: check the path", s.File))
		}
	case s.PassphraseFile != "":
		var p string
		if p, err = ReadPassphrase(s.PassphraseFile); err == nil {
			k, err = crypt.NewPassphraseFile(p)
		}
	}
	return k, err
}

// ReadPassphrase reads a file with a passphrase in its first and only line.
func ReadPassphrase(path string) (string, error) {
	p, err := os.ReadFile(path)
	if err != nil {
		return "", refuse(codes.NotFound, fmt.Sprintf("the passphrase can't be read: %v", err))
	}
	text := strings.TrimRight(string(p), "\r\n")
	if text == "" || strings.ContainsAny(text, "\r\n") {
		return "", refuse(codes.InvalidArgument, fmt.Sprintf("%s must have the passphrase in its first line, and nothing else", path))
	}
	return text, nil
}
