package index

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"
)

// metaFacts is the key in bucket meta for the CRC-32C of all other keys and values. Facts have no checksum of their own; some count by being
// there, and one that has vanished must not look as if it had never been.
const metaFacts = "index.facts"

// putFact changes a fact and the checksum of all. A nil val removes it.
func putFact(tx *bbolt.Tx, key string, val []byte) error {
	b := tx.Bucket([]byte(bucketMeta))
	var err error
	if val == nil {
		err = b.Delete([]byte(key))
	} else {
		err = b.Put([]byte(key), val)
	}
	if err != nil {
		return err
	}
	return b.Put([]byte(metaFacts), binary.LittleEndian.AppendUint32(nil, sumFacts(b)))
}

func sumFacts(b *bbolt.Bucket) uint32 {
	table, sum := crc32.MakeTable(crc32.Castagnoli), uint32(0)
	_ = b.ForEach(func(k, v []byte) error {
		if string(k) == metaFacts {
			return nil
		}
		head := binary.LittleEndian.AppendUint32(nil, uint32(len(k)))
		head = binary.LittleEndian.AppendUint32(head, uint32(len(v)))
		for _, p := range [][]byte{head, k, v} {
			sum = crc32.Update(sum, table, p)
		}
		return nil
	})
	return sum
}

// checkFacts compares the facts with their checksum. An index of an earlier version has none until the first fact is put.
func checkFacts(tx *bbolt.Tx) error {
	b := tx.Bucket([]byte(bucketMeta))
	want := b.Get([]byte(metaFacts))
	if want == nil {
		return nil
	}
	if len(want) != 4 {
		return corrupt("meta", fmt.Sprintf("the checksum of its facts has %d bytes", len(want)), nil)
	}
	if got := sumFacts(b); binary.LittleEndian.Uint32(want) != got {
		return corrupt("meta", fmt.Sprintf("the checksum of its facts is %08x, not %x", got, want), nil)
	}
	return nil
}
