// Package erasure spreads objects over several targets, so that all can be read while some targets are lost, damaged or out of reach.
//
// With the layout k+m, an object is cut into k data shards, to which m parity shards are computed (Reed–Solomon); any k of the k+m give the object.
// Each shard is an object on a target of its own. Short objects are stored whole on every target instead, as copies.
//
// # Names
//
// A shard of the object NAME is the object
//
//	NAME.K-M.LENGTH.GENERATION.I
//
// on its target: k and m decimal, the object's length hexadecimal, the generation 16 hexadecimal digits, the shard's number two
// decimal digits from 00. Data shards have the numbers below k. A copy is the object NAME. No object may have a name that reads as a shard's.
//
// The generation tells the shards of one Put from those of another: 42 bits of time in milliseconds, and 22 random ones. A Put writes
// all shards of a new generation, and then removes those before it, so an object that is replaced can be read at any moment. Where
// several can be read, the newest is the object. What has the same generation is of the same Put, so that only such shards are put together.
//
// # Format of shards and copies, version 1
//
// All integers are little endian. A file is header, body and table, without gaps:
//
//	header   96 bytes
//	   0   8  magic: "GVSHARD" and a zero byte
//	   8   4  format version, 1
//	  12   1  k
//	  13   1  m
//	  14   1  number of the shard
//	  15   1  kind: 0 shard, 1 copy, 2 claim
//	  16   8  length of the object, at most 2⁵⁰
//	  24   8  length of the body, S
//	  32   8  generation
//	  40  32  SHA-256 of the object's name
//	  72  20  zero
//	  92   4  CRC-32C of the 92 bytes before
//	body     S bytes
//	table    4 bytes a unit, and 4
//	         CRC-32C of each unit of the body: 64 KiB, the last one may be shorter
//	         CRC-32C of these
//
// Shards: S is ⌈length/k⌉ rounded up to 64 KiB. Data shard i is the bytes from i·S to (i+1)·S of the object, filled up with zeros. Byte x of
// each parity shard is made of byte x of each data shard: a systematic Vandermonde matrix over GF(2⁸), polynomial 0x11D; it is the
// one that github.com/klauspost/reedsolomon has by default.
//
// Copies and claims: k is 1, m and the number are 0, S is the length, the body is the object.
//
// Never changed: the header's first 12 bytes. Other versions are refused with ErrNewerFormat.
//
// What covers what: the header's CRC and the hash of the name find a header that is damaged or in the wrong place, the table's CRCs each flipped bit of
// the rest; they are checked on every read. A unit that differs counts as missing, so the same unit of k other shards replaces it. A
// file of another size than its name says is missing as a whole. CRCs are no proof against a target that means harm: encryption, one
// layer up, is.
//
// # Where shards go
//
// The targets (members) are ordered by SHA-256 of member id, a zero byte, object name, ascending (rendezvous hashing); shard i goes to the i-th. Shards
// are read wherever they are.
//
// # What is stored
//
// A Put is done when k shards are durable, or of a short object min(m+1, n−m) copies on n members. If something is missing to full strength, it returns a
// *DegradedError. Repair puts what is missing.
//
// Objects that are put with IfAbsent are stored as copies whatever their length, since one object on each target is what targets can decide
// upon: these copies are claims. A claim is put to the first member in the order above that answers; who is first there goes on to the others, and
// succeeds when a majority of all members has taken it, otherwise takes it back. A reader of claims that differ takes the one that a majority has.
//
// # Errors
//
// Those of package target. What can't be read is a *LostError: it wraps target.ErrUnavailable if members that don't answer may have what is missing, and
// fs.ErrNotExist if an open object's shards have all gone since, because it was removed or replaced.
package erasure
