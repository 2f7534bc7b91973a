// Package graphdb is a small property graph in Badger, as the demo and the tests need one: Badger maps its files
// writable, extends them with ftruncate, locks its directory and syncs it, as Dgraph does.
//
// Keys, all numbers big-endian:
//
//	n id(8)             node: 4 bytes of revision, then a property of random length
//	o src(8) dst(8)     edge, seen from its source: weight(4)
//	i dst(8) src(8)     the same edge, seen from its target: weight(4)
//	c                   counter of acknowledged commits (8)
package graphdb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"

	"github.com/dgraph-io/badger/v4"
)

// Graph is an open store. It is safe for concurrent use, but for Close.
type Graph struct {
	db *badger.DB
}

// Facts are what a whole pass over a store finds.
type Facts struct {
	Nodes, Edges int
	Commits      uint64
	Sum          [sha256.Size]byte // over all keys and values
}

// Open opens or makes a store in dir. With sync, a commit returns when it is durable.
func Open(dir string, sync bool) (*Graph, error) {
	opts := badger.DefaultOptions(dir).
		WithLogger(nil).
		WithMetricsEnabled(false).
		WithSyncWrites(sync).
		WithMemTableSize(16 << 20).
		WithValueLogFileSize(64 << 20).
		WithNumGoroutines(runtime.NumCPU()).
		WithNumCompactors(2)
	db, err := badger.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("open the graph in %s: %w", dir, err)
	}
	return &Graph{db}, nil
}

// Close closes the store.
func (g *Graph) Close() error { return g.db.Close() }

// Sync makes all commits durable.
func (g *Graph) Sync() error { return g.db.Sync() }

// Load adds nodes and, for each, edges to random other nodes.
func (g *Graph) Load(ctx context.Context, nodes, edges int, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	batch := g.db.NewWriteBatch()
	defer batch.Cancel()
	for id := range uint64(nodes) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := batch.Set(key('n', id), nodeValue(rng, 0)); err != nil {
			return err
		}
		for range edges {
			dst, weight := rng.Uint64N(uint64(nodes)), binary.BigEndian.AppendUint32(nil, rng.Uint32())
			if err := errors.Join(batch.Set(key('o', id, dst), weight), batch.Set(key('i', dst, id), weight)); err != nil {
				return err
			}
		}
	}
	return batch.Flush()
}

// Change rewrites the given number of nodes, chosen at random, in transactions of 100.
func (g *Graph) Change(ctx context.Context, nodes, count int, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	for done := 0; done < count; done += 100 {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := g.db.Update(func(txn *badger.Txn) error {
			for range min(100, count-done) {
				if err := txn.Set(key('n', rng.Uint64N(uint64(nodes))), nodeValue(rng, uint32(seed))); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Commit does one small transaction: it moves the counter from n-1 to n and changes one node.
func (g *Graph) Commit(n uint64, nodes int) error {
	rng := rand.New(rand.NewPCG(n, 2))
	return g.db.Update(func(txn *badger.Txn) error {
		old, err := counter(txn)
		if err != nil {
			return err
		}
		if old != n-1 {
			return fmt.Errorf("commit %d: the counter stands at %d, so a commit was lost", n, old)
		}
		if err := txn.Set(key('n', rng.Uint64N(uint64(nodes))), nodeValue(rng, uint32(n))); err != nil {
			return err
		}
		return txn.Set([]byte{'c'}, binary.BigEndian.AppendUint64(nil, n))
	})
}

// Commits reads the counter.
func (g *Graph) Commits() (n uint64, err error) {
	err = g.db.View(func(txn *badger.Txn) error {
		n, err = counter(txn)
		return err
	})
	return n, err
}

func counter(txn *badger.Txn) (n uint64, err error) {
	item, err := txn.Get([]byte{'c'})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	err = item.Value(func(v []byte) error {
		n = binary.BigEndian.Uint64(v)
		return nil
	})
	return n, err
}

// Check reads the whole store, and fails where an edge lacks an end or its other direction.
func (g *Graph) Check(ctx context.Context) (Facts, error) {
	var f Facts
	err := g.db.View(func(txn *badger.Txn) error {
		sum := sha256.New()
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			k := it.Item().Key()
			sum.Write(k)
			if err := it.Item().Value(func(v []byte) error { sum.Write(v); return nil }); err != nil {
				return err
			}
			switch k[0] {
			case 'n':
				f.Nodes++
			case 'o':
				f.Edges++
				if err := checkEdge(txn, bytes.Clone(k)); err != nil {
					return err
				}
			}
		}
		sum.Sum(f.Sum[:0])
		var err error
		f.Commits, err = counter(txn)
		return err
	})
	return f, err
}

func checkEdge(txn *badger.Txn, out []byte) error {
	src, dst := binary.BigEndian.Uint64(out[1:]), binary.BigEndian.Uint64(out[9:])
	for _, k := range [][]byte{key('n', src), key('n', dst), key('i', dst, src)} {
		if _, err := txn.Get(k); err != nil {
			return fmt.Errorf("edge %d to %d: key %x: %w", src, dst, k, err)
		}
	}
	return nil
}

func key(kind byte, ids ...uint64) []byte {
	k := []byte{kind}
	for _, id := range ids {
		k = binary.BigEndian.AppendUint64(k, id)
	}
	return k
}

func nodeValue(rng *rand.Rand, revision uint32) []byte {
	v := binary.BigEndian.AppendUint32(nil, revision)
	for range 8 + rng.IntN(8) {
		v = binary.BigEndian.AppendUint64(v, rng.Uint64())
	}
	return v
}
