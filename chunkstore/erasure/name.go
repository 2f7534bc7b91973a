package erasure

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"
	"time"

	"graphvol/chunkstore/target"
)

// version is what the shards that belong together have in common.
type version struct {
	Layout
	length int64
	gen    uint64
}

// longName is the length of a last element that leaves no room for what shards add. Objects of longer names are stored as copies.
const longName = 150

func shardName(name string, v version, number int) string {
	return fmt.Sprintf("%s.%d-%d.%x.%016x.%02d", name, v.Data, v.Parity, v.length, v.gen, number)
}

// parseShard takes a shard's name apart.
func parseShard(s string) (name string, v version, number int, ok bool) {
	f := strings.Split(path.Base(s), ".")
	if len(f) < 5 {
		return "", version{}, 0, false
	}
	f = f[len(f)-4:]
	k, m, _ := strings.Cut(f[0], "-")
	var err [5]error
	v.Data, err[0] = strconv.Atoi(k)
	v.Parity, err[1] = strconv.Atoi(m)
	v.length, err[2] = strconv.ParseInt(f[1], 16, 64)
	v.gen, err[3] = strconv.ParseUint(f[2], 16, 64)
	number, err[4] = strconv.Atoi(f[3])
	if err != [5]error{} || v.check() != nil || v.length < 0 || v.length > maxLength || number < 0 || number >= v.total() {
		return "", version{}, 0, false
	}
	name = strings.TrimSuffix(s, "."+strings.Join(f, "."))
	return name, v, number, name != "" && shardName(name, v, number) == s
}

// checkName refuses names that objects can't have.
func checkName(name string) error {
	if err := target.CheckName(name); err != nil {
		return err
	}
	if _, _, _, ok := parseShard(name); ok {
		return &fs.PathError{Op: "name of a shard", Path: name, Err: target.ErrBadName}
	}
	return nil
}

func isLong(name string) bool { return len(path.Base(name)) > longName }

// newGeneration is later than those seen, and those that this target has given.
func (t *Target) newGeneration(seen uint64) uint64 {
	now := uint64(time.Now().UnixMilli())<<22 | rand.Uint64N(1<<22)
	for {
		last := t.lastGen.Load()
		gen := max(now, seen+1, last+1)
		if t.lastGen.CompareAndSwap(last, gen) {
			return gen
		}
	}
}
