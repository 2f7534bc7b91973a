package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"graphvol/chunkstore/crypt"
)

// StoreMounted is a mounted store.
type StoreMounted struct {
	Mount     string `json:"mount"`
	Cache     string `json:"cache"` // the store's own directory
	Volume    string `json:"volume"`
	Sequence  uint64 `json:"sequence"` // of the head
	Snapshots int    `json:"snapshots"`
	Server    int    `json:"server"` // pid
}

// StoreEvent is what the process of a mounted store says until it serves: how far it is, and at the end that it serves, or why not.
type StoreEvent struct {
	Done    int64         `json:"done,omitempty"` // bytes of packs whose lists were read
	Total   int64         `json:"total,omitempty"`
	Mounted *StoreMounted `json:"mounted,omitempty"`
	Error   string        `json:"error,omitempty"`
}

// MountStore mounts a copy of a store and returns when it serves. self is this program: it is run as "self serve-store OPTIONS", in a session of its own. The
// key goes through a pipe, and is kept in that process's memory only.
func MountStore(ctx context.Context, self string, o StoreOptions, key KeySource, notes io.Writer, progress func(done, total int64)) (StoreMounted, error) {
	k, err := prepareStore(ctx, &o, key, notes)
	if err != nil {
		return StoreMounted{}, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return StoreMounted{}, fmt.Errorf("start the server: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(self, "serve-store", o.String())
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr         // until it has a file for it
	cmd.ExtraFiles = []*os.File{w} // readyFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	secret, err := json.Marshal(secretOf(k))
	if err != nil {
		return StoreMounted{}, err
	}
	cmd.Stdin = bytes.NewReader(secret)
	err = cmd.Start()
	w.Close()
	if err != nil {
		return StoreMounted{}, fmt.Errorf("start the server: %w", err)
	}
	m, err := awaitStore(ctx, r, progress)
	if err != nil {
		cmd.Process.Signal(syscall.SIGTERM)
		return m, err
	}
	return m, cmd.Process.Release()
}

// storeSecret is a key on its way through a pipe. Empty: the copy isn't encrypted.
type storeSecret struct {
	Recovery   string `json:"recovery,omitempty"`
	Passphrase string `json:"passphrase,omitempty"`
}

func secretOf(k *crypt.KeyFile) storeSecret {
	switch {
	case k == nil:
		return storeSecret{}
	case k.Identity == nil:
		return storeSecret{Passphrase: k.Passphrase}
	}
	return storeSecret{Recovery: k.Recovery()}
}

func (s storeSecret) key() (*crypt.KeyFile, error) {
	switch {
	case s.Recovery != "":
		return crypt.ParseRecovery(s.Recovery)
	case s.Passphrase != "":
		return crypt.NewPassphraseFile(s.Passphrase)
	}
	return nil, nil
}

// prepareStore checks what can be checked before anything is asked of the copy.
func prepareStore(ctx context.Context, o *StoreOptions, key KeySource, notes io.Writer) (*crypt.KeyFile, error) {
	k, err := key.read()
	if err == nil {
		err = o.prepare(ctx, notes)
	}
	return k, err
}

// awaitStore reads what the server says, until it has said that it serves, or has ended.
func awaitStore(ctx context.Context, r *os.File, progress func(done, total int64)) (StoreMounted, error) {
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	for dec := json.NewDecoder(r); ; {
		var ev StoreEvent
		err := dec.Decode(&ev)
		switch {
		case ctx.Err() != nil:
			return StoreMounted{}, ctx.Err()
		case err != nil:
			return StoreMounted{}, refuse(codes.Internal, "the server ended without a word")
		case ev.Error != "":
			return StoreMounted{}, refuse(codes.FailedPrecondition, ev.Error)
		case ev.Mounted != nil:
			return *ev.Mounted, nil
		}
		progress(ev.Done, ev.Total)
	}
}

// ServeStoreHere is MountStore in this process, until the store is unmounted or ctx ends.
func ServeStoreHere(ctx context.Context, o StoreOptions, key KeySource, version string, notes io.Writer, tell func(StoreEvent)) error {
	k, err := prepareStore(ctx, &o, key, notes)
	if err != nil {
		return err
	}
	return ServeStore(ctx, o, k, version, tell, nil)
}

// ServeStoreDetached is ServeStore in a process that MountStore has started: what it has to say goes to the inherited pipe.
func ServeStoreDetached(ctx context.Context, o StoreOptions, version string) error {
	forgetManager()
	unix.CloseOnExec(readyFD)
	ready := os.NewFile(readyFD, "ready")
	if ready == nil {
		return errors.New("this command is internal: use graphvol mount-store")
	}
	defer ready.Close()
	say := func(ev StoreEvent) {
		json.NewEncoder(ready).Encode(ev) // fails when nobody listens any more
		if ev.Mounted != nil {
			ready.Close()
		}
	}
	err := serveWithKey(ctx, o, version, say)
	if err != nil {
		say(StoreEvent{Error: Message(err)})
	}
	return err
}

func serveWithKey(ctx context.Context, o StoreOptions, version string, say func(StoreEvent)) error {
	var secret storeSecret
	if err := json.NewDecoder(os.Stdin).Decode(&secret); err != nil {
		return fmt.Errorf("read the key: %w", err)
	}
	k, err := secret.key()
	if err != nil {
		return err
	}
	return ServeStore(ctx, o, k, version, say, moveStderr)
}

// moveStderr sends what the runtime has to say of a crash to a file in the cache: the terminal is gone by then.
func moveStderr(cache string) error {
	f, err := openStderr(cache)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Dup3(int(f.Fd()), unix.Stderr, 0)
}
