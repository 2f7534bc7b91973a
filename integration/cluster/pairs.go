package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"graphvol/integration/volume"
)

const (
	pageSize = 4096
	// breath is between two rounds of a client, so that many of them leave the processor to those who are tested.
	breath = 5 * time.Millisecond
)

// Pairs are clients, each with a file on one volume and another on a second one, for every two volumes of a cluster in both orders. Each writes a number to the first, then to the
// second, then the next number. A write is over when it has returned on a volume with the cache through, else when fsync has.
type Pairs struct {
	all     []*pair
	stop    chan struct{}
	clients sync.WaitGroup
	longest atomic.Int64 // write, in nanoseconds

	mu struct {
		sync.Mutex
		turns map[*volume.Volume]int // how often the volume's machine has died or come back; odd: it is away
	}
}

type pair struct {
	first, second *counter
	turns         int           // of both, when the files were opened
	done          atomic.Uint64 // what both have, for sure
	begun         atomic.Uint64 // what the first may have
	err           error         // what has ended the client; after clients.Wait
}

// counter is a file that holds a number, as often as it has room for.
type counter struct {
	v    *volume.Volume
	name string
	sync bool
	f    *os.File
}

// StartPairs makes the files, and begins to write.
func StartPairs(volumes []*volume.Volume) (*Pairs, error) {
	p := &Pairs{stop: make(chan struct{})}
	p.mu.turns = make(map[*volume.Volume]int)
	for i, a := range volumes {
		for j, b := range volumes {
			if i == j {
				continue
			}
			one := &pair{first: newCounter(a, i, j, "first"), second: newCounter(b, i, j, "second")}
			p.all = append(p.all, one)
			if err := errors.Join(one.first.open(), one.second.open()); err != nil {
				p.closeFiles()
				return nil, err
			}
		}
	}
	for _, one := range p.all {
		p.clients.Go(func() { one.err = p.write(one) })
	}
	return p, nil
}

func newCounter(v *volume.Volume, i, j int, which string) *counter {
	return &counter{v: v, name: fmt.Sprintf("pair-%d-%d-%s", i, j, which), sync: v.Cache != "through"}
}

func (c *counter) path() string { return filepath.Join(c.v.Mount, c.name) }

func (c *counter) open() (err error) {
	if c.f, err = os.OpenFile(c.path(), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	if err := c.set(0); err != nil {
		return err
	}
	return c.f.Sync()
}

func (c *counter) set(n uint64) error {
	p := bytes.Repeat(binary.BigEndian.AppendUint64(nil, n), pageSize/8)
	if _, err := c.f.WriteAt(p, 0); err != nil || !c.sync {
		return err
	}
	return c.f.Sync()
}

// read gives the number in a copy of the volume.
func (c *counter) read(dir string) (uint64, error) {
	p, err := os.ReadFile(filepath.Join(dir, c.name))
	if err != nil {
		return 0, err
	}
	if len(p) != pageSize || !bytes.Equal(p, bytes.Repeat(p[:8], pageSize/8)) {
		return 0, fmt.Errorf("%s: %d bytes that aren't one number", filepath.Join(dir, c.name), len(p))
	}
	return binary.BigEndian.Uint64(p), nil
}

func (p *Pairs) write(one *pair) error {
	for n := uint64(1); ; {
		select {
		case <-p.stop:
			return nil
		case <-time.After(breath):
		}
		turns, there := p.turns(one)
		var err error
		switch {
		case !there:
			continue
		case turns != one.turns:
			one.turns, err = turns, one.reopen()
		default:
			if err = p.round(one, n); err == nil {
				n++
			}
		}
		if now, _ := p.turns(one); err != nil && now == turns {
			return fmt.Errorf("the client of %s and %s, at %d: %w", one.first.path(), one.second.path(), n, err)
		}
	}
}

// round writes a number to both files.
func (p *Pairs) round(one *pair, n uint64) error {
	one.begun.Store(n)
	for _, c := range []*counter{one.first, one.second} {
		began := time.Now()
		if err := c.set(n); err != nil {
			return err
		}
		p.note(time.Since(began))
	}
	one.done.Store(n)
	return nil
}

// Turn says that a machine with some volumes is about to die, or is there again. Meanwhile their clients wait, and whatever they see at its death is no error. Then they open their files again, and
// what they had done must be there.
func (p *Pairs) Turn(volumes ...*volume.Volume) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range volumes {
		p.mu.turns[v]++
	}
}

// turns counts those of both volumes, and tells whether both are there.
func (p *Pairs) turns(one *pair) (n int, there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, b := p.mu.turns[one.first.v], p.mu.turns[one.second.v]
	return a + b, a%2+b%2 == 0
}

// reopen opens the files on machines that have come back.
func (one *pair) reopen() error {
	for _, c := range []*counter{one.first, one.second} {
		c.f.Close() // of the one that died it fails
		f, err := os.OpenFile(c.path(), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		c.f = f
		n, err := c.read(c.v.Mount)
		if err != nil {
			return err
		}
		if done, begun := one.done.Load(), one.begun.Load(); n < done || n > begun {
			return fmt.Errorf("%s has %d when its machine is back; %d was acknowledged, and no more than %d was written", c.path(), n, done, begun)
		}
	}
	return nil
}

func (p *Pairs) note(d time.Duration) {
	for old := p.longest.Load(); int64(d) > old && !p.longest.CompareAndSwap(old, int64(d)); old = p.longest.Load() {
	}
}

// Longest tells how long a write has taken at most since it was last asked.
func (p *Pairs) Longest() time.Duration { return time.Duration(p.longest.Swap(0)) }

// Rounds tells how often a number was written to both files, by all clients.
func (p *Pairs) Rounds() (n uint64) {
	for _, one := range p.all {
		n += one.done.Load()
	}
	return n
}

// Stop ends the clients. Its error is why some of them had ended before.
func (p *Pairs) Stop() error {
	close(p.stop)
	p.clients.Wait()
	errs := []error{p.closeFiles()}
	for _, one := range p.all {
		errs = append(errs, one.err)
	}
	return errors.Join(errs...)
}

func (p *Pairs) closeFiles() (err error) {
	for _, one := range p.all {
		for _, c := range []*counter{one.first, one.second} {
			if c.f != nil {
				err = errors.Join(err, c.f.Close())
			}
		}
	}
	return err
}

// Mark is what clients have done for sure at one moment.
func (p *Pairs) Mark() (m []uint64) {
	for _, one := range p.all {
		m = append(m, one.done.Load())
	}
	return m
}

// Findings are what is wrong with a snapshot.
type Findings struct {
	Ahead []string // pairs whose second number is there, and of the first an older one
	Other []string // what is missing, or can't be read
}

// Err is nil if nothing is wrong.
func (f *Findings) Err() error {
	all := append(append([]string{}, f.Ahead...), f.Other...)
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("%d pairs are out of order, %d are wrong otherwise: %q", len(f.Ahead), len(f.Other), all[:min(len(all), 5)])
}

// Check looks at the pairs in a snapshot that was asked for after the mark. dir gives its content on a volume.
func (p *Pairs) Check(mark []uint64, dir func(*volume.Volume) string) (f Findings) {
	for i, one := range p.all {
		a, erra := one.first.read(dir(one.first.v))
		b, errb := one.second.read(dir(one.second.v))
		text := fmt.Sprintf("%s has %d, %s has %d; before the snapshot both had %d", one.first.path(), a, one.second.path(), b, mark[i])
		switch {
		case erra != nil || errb != nil:
			f.Other = append(f.Other, errors.Join(erra, errb).Error())
		case b > a:
			f.Ahead = append(f.Ahead, text)
		case a > b+1, b < mark[i], a > one.begun.Load():
			f.Other = append(f.Other, text)
		}
	}
	return f
}

// InSnapshot is for Check.
func InSnapshot(name string) func(*volume.Volume) string {
	return func(v *volume.Volume) string { return v.SnapshotDir(name) }
}
