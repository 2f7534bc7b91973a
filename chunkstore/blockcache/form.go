package blockcache

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
	"slices"
)

// form is how a block is on disk. Without seal: the block, and the CRC-32C of its key and it. With it: a random nonce, and the block encrypted with its key as
// additional data, so that no file passes for another block.
type form struct{ seal cipher.AEAD }

func (f form) suffix() string {
	if f.seal != nil {
		return ".sealed"
	}
	return ".block"
}

func (f form) encode(key blockKey, data []byte) []byte {
	if f.seal == nil {
		return append(slices.Clip(data), sumOf(key, data)...)
	}
	nonce := make([]byte, f.seal.NonceSize(), f.seal.NonceSize()+len(data)+f.seal.Overhead())
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	return f.seal.Seal(nonce, nonce, data, key.bytes())
}

// decode gives the block of a length; false: p isn't that. It writes to p.
func (f form) decode(key blockKey, p []byte, length int64) (data []byte, ok bool) {
	if f.seal == nil {
		ok = int64(len(p)) == length+crc32.Size && string(p[length:]) == string(sumOf(key, p[:length]))
		if ok {
			data = p[:length:length]
		}
		return data, ok
	}
	n := f.seal.NonceSize()
	if int64(len(p)) != int64(n+f.seal.Overhead())+length {
		return nil, false
	}
	data, err := f.seal.Open(p[n:n], p[:n], p[n:], key.bytes())
	return data, err == nil
}

func sumOf(key blockKey, data []byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Checksum(key.bytes(), table)
	return binary.LittleEndian.AppendUint32(nil, crc32.Update(sum, table, data))
}
