// Package probe tries whether a place can be a target: all that package target demands of one is done there with small objects of its own, which are removed
// again. So missing rights, a server that lacks something, and wrong options show before anything depends on them.
package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"graphvol/chunkstore/target"
)

// prefix is that of all objects of probes.
const prefix = "probe/"

// size is an object's that is put to see how fast that goes, in bytes.
const size = 8 << 20

// Step is something that was tried.
type Step struct {
	Name  string
	Took  time.Duration
	Bytes int64 // that were moved, where that tells how fast the target is
	Err   error // nil: it works
}

// Run tries everything, one after the other. It ends after the first step that fails, having removed what it has put if that is possible. If it is killed, its
// objects stay until the next run.
func Run(ctx context.Context, t target.Target) (steps []Step) {
	p := &probe{t: t, small: []byte("graphvol target check\n"), large: make([]byte, size)}
	id := make([]byte, 8)
	_, _ = rand.Read(id)      // never fails
	_, _ = rand.Read(p.large) // so that nothing on the way makes it smaller
	p.name = prefix + hex.EncodeToString(id)
	for _, s := range []struct {
		name string
		do   func(context.Context) (int64, error)
	}{
		{"list", p.list},
		{"write", p.write},
		{"refuse to write what is there", p.refuse},
		{"read", p.read},
		{"read a part", p.readPart},
		{"list what was written", p.listed},
		{"replace", p.replace},
		{"read what was replaced", p.replaced},
		{"remove", p.remove},
	} {
		start := time.Now()
		n, err := s.do(ctx)
		steps = append(steps, Step{s.name, time.Since(start), n, err})
		if err != nil {
			break
		}
	}
	if err := steps[len(steps)-1].Err; err != nil && len(steps) > 1 {
		// Best effort: what can't be removed is removed by the next run.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = t.Remove(ctx, p.name)
	}
	return steps
}

// probe is one run.
type probe struct {
	t            target.Target
	name         string
	small, large []byte
}

// list lists the whole target's probes, and removes what runs have left that were killed.
func (p *probe) list(ctx context.Context) (int64, error) {
	list, err := p.t.List(ctx, prefix)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	var names []string
	for _, in := range list {
		names = append(names, in.Name)
	}
	return 0, p.t.Remove(ctx, names...)
}

func (p *probe) write(ctx context.Context) (int64, error) {
	return size, p.t.Put(ctx, p.name, bytes.NewReader(p.large), target.PutOptions{IfAbsent: true})
}

func (p *probe) refuse(ctx context.Context) (int64, error) {
	err := p.t.Put(ctx, p.name, bytes.NewReader(p.small), target.PutOptions{IfAbsent: true})
	switch {
	case errors.Is(err, target.ErrExists):
		return 0, nil
	case err == nil:
		return 0, errors.New("the server has replaced an object that it was asked not to replace (it ignores If-None-Match): " +
			"two machines that write to one copy would not notice each other, so it can't be a target")
	}
	return 0, err
}

func (p *probe) read(ctx context.Context) (int64, error) {
	return size, p.same(ctx, p.large)
}

func (p *probe) same(ctx context.Context, want []byte) error {
	got, err := target.Get(ctx, p.t, p.name, size)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("what was read isn't what was written: %d bytes instead of %d, or others", len(got), len(want))
	}
	return err
}

func (p *probe) readPart(ctx context.Context) (int64, error) {
	o, err := p.t.Open(ctx, p.name)
	if err != nil {
		return 0, err
	}
	defer o.Close()
	const at = size/2 + 12345
	got := make([]byte, 1000)
	if _, err := o.ReadAt(ctx, got, at); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if !bytes.Equal(got, p.large[at:at+len(got)]) {
		return 0, errors.New("of a part of an object other bytes came than were written")
	}
	return 0, nil
}

func (p *probe) listed(ctx context.Context) (int64, error) {
	list, err := p.t.List(ctx, prefix)
	if err == nil && !slices.Contains(list, target.Info{Name: p.name, Size: size}) {
		err = errors.New("an object that was just written isn't listed: the server must be consistent")
	}
	return 0, err
}

func (p *probe) replace(ctx context.Context) (int64, error) {
	return 0, target.Put(ctx, p.t, p.name, p.small)
}

func (p *probe) replaced(ctx context.Context) (int64, error) { return 0, p.same(ctx, p.small) }

func (p *probe) remove(ctx context.Context) (int64, error) {
	if err := p.t.Remove(ctx, p.name); err != nil {
		return 0, err
	}
	o, err := p.t.Open(ctx, p.name)
	if err == nil {
		o.Close()
		return 0, errors.New("an object that was just removed is still there: the server must be consistent, or the bucket keeps objects locked")
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return 0, err
}
