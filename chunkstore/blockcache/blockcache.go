// Package blockcache is a target over one that is far away: what is read there is read in blocks, which are kept for a while, in memory and, if wanted, on
// disk. Who reads on is read ahead, in one request for the rest of the object where the target can do that.
//
// Only objects are cached whose names begin with a prefix: of those that are never replaced. A block of one that was read once is right as long as the object is there; objects that
// are gone are noticed when they are opened. Blocks in memory are the least recently used first to go; on disk it is the oldest. A block on disk that doesn't match its checksum counts as
// missing, so whatever becomes of the directory does no harm. What was decrypted above the target can be encrypted again on disk.
package blockcache

import (
	"context"
	"crypto/cipher"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"graphvol/chunkstore/target"
)

const (
	// blockSize is what is kept and missed as one.
	blockSize = 512 << 10
	// maxRun is how many blocks are read at once where an object is read from begin to end.
	maxRun = 8
	// defaultMemory are the bytes of blocks in memory.
	defaultMemory = 96 << 20
)

// Options are a cache's settings; zero values mean the defaults.
type Options struct {
	Prefix string // of the names that are cached
	Memory int64  // bytes; default 96 MiB
	Dir    string // where blocks are kept on disk; empty: nowhere. It is made if it is missing
	Disk   int64  // bytes on disk; default 1 GiB
	// Seal encrypts the blocks on disk; nil: they are there as they were read.
	Seal cipher.AEAD
}

// Target caches what is read from another target. All else is passed on to that.
type Target struct {
	target.Target
	prefix   string
	memory   *memory
	disk     *disk         // nil: none
	patience time.Duration // of streams

	mu struct {
		sync.Mutex
		flights map[blockKey]*flight
		streams map[string]*stream // by object
	}
}

var _ target.Target = (*Target)(nil)

// blockKey names a block.
type blockKey struct {
	object string
	block  int64
}

// flight is a block that is being read.
type flight struct {
	done chan struct{} // closed when data and err are final; none of both: the block is in memory, or must be asked for again
	data []byte
	err  error

	streamed bool // under Target.mu: a stream brings it
}

// New returns a Target.
func New(inner target.Target, o Options) (*Target, error) {
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	t := &Target{Target: inner, prefix: o.Prefix, memory: newMemory(o.Memory), patience: defaultPatience}
	t.mu.flights = make(map[blockKey]*flight)
	t.mu.streams = make(map[string]*stream)
	if o.Dir == "" {
		return t, nil
	}
	var err error
	t.disk, err = openDisk(o.Dir, o.Disk, o.Seal)
	return t, err
}

// Open opens an object.
func (t *Target) Open(ctx context.Context, name string) (target.Object, error) {
	o, err := t.Target.Open(ctx, name)
	if err != nil || !strings.HasPrefix(name, t.prefix) {
		return o, err
	}
	return &object{Object: o, cache: t, name: name}, nil
}

// object is an open object. Several goroutines may read it.
type object struct {
	target.Object
	cache *Target
	name  string
	mine  atomic.Pointer[stream] // the last that was begun by way of this object
}

// ReadAt reads by way of the cache.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read before the beginning")
	}
	for n < len(p) {
		if off >= o.Size() {
			return n, io.EOF
		}
		c, err := o.read(ctx, p[n:], off/blockSize, off%blockSize)
		if err != nil {
			return n, err
		}
		n, off = n+c, off+int64(c)
	}
	return n, nil
}

// length is that of a block.
func (o *object) length(block int64) int64 { return min(blockSize, o.Size()-block*blockSize) }

// read copies what p has room for of a block, from byte at on: from memory, from disk, or from where it is.
func (o *object) read(ctx context.Context, p []byte, block, at int64) (int, error) {
	key := blockKey{o.name, block}
	for alone := false; ; {
		if n, ok := o.cache.memory.read(key, p, at); ok {
			return n, nil
		}
		if data := o.cache.disk.get(key, o.length(block)); data != nil {
			o.cache.memory.put(key, data)
			return copy(p, data[at:]), nil
		}
		f, mine := o.cache.join(key)
		if mine && !o.landed(key, f) && (alone || !o.streamed(ctx, block, f)) {
			o.fetch(ctx, block, f)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		// Whoever reads the block may have been called off, which is no error of ours.
		calledOff := !mine && ctx.Err() == nil && (errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded))
		switch {
		case f.data != nil:
			return copy(p, f.data[at:]), nil
		case f.err != nil && !calledOff:
			return 0, f.err
		case f.err == nil:
			alone = true // if it isn't in memory, so that the error, if there is one, shows
		}
	}
}

// landed looks whether a block has come between the look for it and the join.
func (o *object) landed(key blockKey, f *flight) bool {
	if !o.cache.memory.has(key) {
		return false
	}
	o.cache.land(key, f)
	return true
}

// has tells whether a block needn't be read.
func (t *Target) has(key blockKey) bool { return t.memory.has(key) || t.disk.has(key) }

// join finds the flight of a block; mine if the caller has to read it.
func (t *Target) join(key blockKey) (f *flight, mine bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f = t.mu.flights[key]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	t.mu.flights[key] = f
	return f, true
}

// fetch reads a block, and some that follow if those before it were read.
func (o *object) fetch(ctx context.Context, block int64, first *flight) {
	flights := []*flight{first}
	for n := o.ahead(block); int64(len(flights)) < n; {
		key := blockKey{o.name, block + int64(len(flights))}
		if o.cache.has(key) {
			break
		}
		f, mine := o.cache.join(key)
		if !mine {
			break
		}
		flights = append(flights, f)
	}
	from := block * blockSize
	p := make([]byte, min(int64(len(flights))*blockSize, o.Size()-from))
	n, err := o.Object.ReadAt(ctx, p, from)
	if n == len(p) {
		err = nil
	} else if err == nil {
		err = io.ErrUnexpectedEOF
	}
	for i, f := range flights {
		key := blockKey{o.name, block + int64(i)}
		if f.err = err; err == nil {
			at := int64(i) * blockSize
			f.data = p[at : at+o.length(key.block) : at+o.length(key.block)]
			o.cache.disk.put(key, f.data)
			o.cache.memory.put(key, f.data)
		}
		o.cache.land(key, f)
	}
}

// ahead tells how many blocks to read from a block on: where the one before is known, whoever has read that goes through the object, and gets all up to
// the next multiple of maxRun.
func (o *object) ahead(block int64) int64 {
	if block == 0 || !o.cache.known(blockKey{o.name, block - 1}) {
		return 1
	}
	left := (o.Size()-1)/blockSize + 1 - block
	return min(maxRun-block%maxRun, left)
}

// known tells whether a block is there, or being read.
func (t *Target) known(key blockKey) bool {
	t.mu.Lock()
	_, reading := t.mu.flights[key]
	t.mu.Unlock()
	return reading || t.has(key)
}

// land ends a flight. data and err are set.
func (t *Target) land(key blockKey, f *flight) {
	t.mu.Lock()
	delete(t.mu.flights, key)
	t.mu.Unlock()
	close(f.done)
}
